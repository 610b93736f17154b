import { z } from "zod";
import type { Lease } from "./device.ts";
import { Id, Instant } from "./ids.ts";
import { Job } from "./job.ts";
import { message } from "./message.ts";

/**
 * Work for one device: KV bucket `vs-leases`, key `<agentId>.<deviceId>`, written by the coordinator alone, one entry a device. The stream sequence at which it
 * was stored is the lease's fencing token, so it rises with each assignment and never repeats. Once it is on disk the broker repeats it on
 * `vs.assign.<agentId>.<deviceId>` with the sequence in the header Nats-Sequence (core NATS, lossy); an agent that connects reads what stands under its keys.
 */
export const Assignment = message("assignment", {
  agentId: Id,
  /** The life of the agent that it is for, as in its AgentInfo; another process with the same id leaves it alone. */
  agentStartedAt: Instant,
  /** The device of the key; for a gang the others too, all of this agent. */
  devices: z.array(Id).min(1),
  job: Job,
  grantedAt: Instant,
  /** The agent must be heard of within this; else the lease ends. */
  ttlMs: z.int().min(1),
  deadline: Instant,
});
export type Assignment = z.infer<typeof Assignment>;

/** What an assignment that was stored at `token` gives its agent. */
export const leaseOf = (a: Assignment, token: number): Lease => ({
  v: 1,
  kind: "lease",
  deviceId: a.devices[0] ?? "",
  agentId: a.agentId,
  jobId: a.job.id,
  attempt: a.job.attempt,
  token,
  grantedAt: a.grantedAt,
  ttlMs: a.ttlMs,
  deadline: a.deadline,
});

/**
 * Message on `vs.agent.<agentId>.revoke` (core NATS, no reply, lossy): the attempt is over (expired, cancelled), stop working on it. An agent that
 * misses it loses nothing but time: its result will be evidence only, and its next report of progress is answered with another one.
 */
export const LeaseRevoked = message("lease.revoked", {
  agentId: Id,
  deviceId: Id,
  jobId: Id,
  attempt: z.int().min(1),
  token: z.int().min(1),
  reason: z.string().max(500),
});
export type LeaseRevoked = z.infer<typeof LeaseRevoked>;

/**
 * Message on `vs.beat.<agentId>` (core NATS, lossy), every 5 s while the agent lives, and at once when asked on `vs.roll`. Its entry in the registry is
 * written only when it changes: a synced write of every agent's every beat would keep a disk busy.
 */
export const Beat = message("beat", { agentId: Id, startedAt: Instant });
export type Beat = z.infer<typeof Beat>;
