import type { JetStreamClient } from "@nats-io/jetstream";
import { encode, Job, subjects } from "@vibeserve/shared";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import type { Effect } from "../campaign/effect.ts";

/**
 * Effect `dispatch`: the request is a fact before the job is on the queue, so a kill in between repeats the publish and nothing is worked on that
 * the log does not know. The msg-id makes the repeat harmless while the queue remembers it, and the lease does afterwards. A publish that gets no
 * answer throws and is tried again by the actor.
 */
export async function dispatchJob(
  js: JetStreamClient,
  now: () => number,
  effect: Extract<Effect, { type: "dispatch" }>,
  context: EffectContext,
): Promise<null> {
  const { id, attempt } = effect.job;
  let job = context.requested(id, attempt);
  if (!job) {
    const pool = context.campaign.agent?.pools[0];
    if (pool === undefined) throw new Error(`job ${id} was asked for before a device was bound`);
    job = { ...effect.job, issuedAt: now(), pool };
    if (!(await context.append({ type: "job.requested", job }))) return null;
  }
  await publishJob(js, job);
  return null;
}

/** Returns when the job is synced to its pool's queue; throws where the broker does not say so in time. */
export async function publishJob(js: JetStreamClient, job: Job): Promise<void> {
  const subject = subjects.job(job.pool, job.spec.kind);
  await js.publish(subject, encode(Job, job, subject), { msgID: `${job.id}.${job.attempt}`, timeout: 5_000 });
}
