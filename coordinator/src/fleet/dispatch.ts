import type { AgentInfo, BuildTarget, Device, Job } from "@vibeserve/shared";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import type { Effect } from "../campaign/effect.ts";

/**
 * Effect `dispatch`: the request is a fact before the job can go out, so nothing is worked on that the log does not know. After a kill it is offered again; the
 * dispatcher knows what is leased already.
 */
export async function dispatchJob(
  offer: (job: Job, simulated: boolean) => void,
  now: () => number,
  targetOf: (agent: AgentInfo, device: Device) => BuildTarget | undefined,
  effect: Extract<Effect, { type: "dispatch" }>,
  context: EffectContext,
): Promise<null> {
  const { id, attempt } = effect.job;
  let job = context.requested(id, attempt);
  if (!job) {
    const { agent, device } = context.campaign;
    const pool = agent?.pools[0];
    if (!agent || !device || pool === undefined) throw new Error(`job ${id} was asked for before a device was bound`);
    const { spec } = effect.job;
    const target = spec.kind === "build" ? targetOf(agent, device) : undefined;
    job = { ...effect.job, issuedAt: now(), pool, spec: spec.kind === "build" && target ? { ...spec, for: target } : spec };
    if (!(await context.append({ type: "job.requested", job }))) return null;
  }
  offer(job, context.campaign.device?.simulated ?? false);
  return null;
}
