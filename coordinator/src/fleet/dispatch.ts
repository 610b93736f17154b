import { devicePool, type AgentInfo, type BuildTarget, type Device, type Job } from "@vibeserve/shared";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import type { Campaign } from "../campaign/campaign.machine.ts";
import type { Effect } from "../campaign/effect.ts";
import type { SchedulableCampaign } from "../schedule/model.ts";

/** What a campaign's jobs may claim. simulated: only simulated devices, else only real ones. */
export type Claim = Omit<SchedulableCampaign, "id"> & { simulated: boolean };

const claimOf = ({ target, device, createdAt }: Campaign): Claim => ({
  simulated: device?.simulated ?? false,
  weight: target.schedule?.weight ?? 1,
  priority: target.schedule?.priority ?? 0,
  deadlineAt: target.schedule?.deadlineS === undefined ? null : createdAt + target.schedule.deadlineS * 1000,
});

/**
 * Effect `dispatch`: the request is a fact before the job can go out, so nothing is worked on that the log does not know. After a kill it is offered again; the
 * dispatcher knows what is leased already.
 */
export async function dispatchJob(
  offer: (job: Job, of: Claim, avoid: readonly string[]) => void,
  now: () => number,
  targetOf: (agent: AgentInfo, device: Device) => BuildTarget | undefined,
  effect: Extract<Effect, { type: "dispatch" }>,
  context: EffectContext,
): Promise<null> {
  const { id, attempt } = effect.job;
  let job = context.requested(id, attempt);
  if (!job) {
    const { agent, device } = context.campaign;
    if (!agent || !device) throw new Error(`job ${id} was asked for before a device was bound`);
    const { spec } = effect.job;
    const target = spec.kind === "build" ? targetOf(agent, device) : undefined;
    const pool = devicePool(agent, device);
    job = { ...effect.job, issuedAt: now(), pool, spec: spec.kind === "build" && target ? { ...spec, for: target } : spec };
    if (!(await context.append({ type: "job.requested", job }))) return null;
  }
  offer(job, claimOf(context.campaign), context.campaign.ledger[id]?.avoid ?? []);
  return null;
}
