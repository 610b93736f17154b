import { devicesOf, type Job, type JobResult, type Lease } from "@vibeserve/shared";

/** How an attempt stands in its campaign. */
export type JobStanding =
  /** Asked for and not over. */
  | { kind: "open" }
  /** Its campaign starts nothing at the moment. */
  | { kind: "held"; reason: string }
  /** Its campaign's log is not read yet: it may be open. */
  | { kind: "unread" }
  /** Settled, expired, cancelled, another attempt, or never heard of. */
  | { kind: "over"; reason: string };

/** A lease with what only the coordinator needs: its job, every device of a gang, who its agent was, and when that was last heard of. */
export interface LiveLease {
  lease: Lease;
  job: Job;
  devices: readonly string[];
  /** `startedAt` of the agent process that got it; another process with the same id does not inherit it. */
  agentStartedAt: number;
  heardAt: number;
}

/** Why a result must not count, or null if `lease`, the one that is live on its device, is its own (I3). */
export function staleness(
  held: Pick<LiveLease, "lease" | "devices"> | null,
  result: Pick<JobResult, "deviceId" | "devices" | "agentId" | "jobId" | "attempt" | "leaseToken">,
): string | null {
  const lease = held?.lease;
  if (!lease) return `no lease is live on device ${result.deviceId}`;
  if (lease.token !== result.leaseToken) return `lease token ${result.leaseToken} is not the current one, ${lease.token}`;
  if (lease.jobId !== result.jobId || lease.attempt !== result.attempt)
    return `the lease is for job ${lease.jobId}, attempt ${lease.attempt}, not for ${result.jobId}, attempt ${result.attempt}`;
  if (lease.agentId !== result.agentId) return `the lease was granted to agent ${lease.agentId}, not to ${result.agentId}`;
  if (devicesOf(result).join() !== held.devices.join())
    return `the lease is for ${held.devices.join(", ")}, not for ${devicesOf(result).join(", ")}`;
  return null;
}
