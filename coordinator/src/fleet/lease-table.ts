import { builderDevice, type AgentInfo, type Lease, type LeaseRequest } from "@vibeserve/shared";

/** What the granter needs to know of a job to judge a request for it. */
export type JobStanding =
  /** Asked for and not over; deadlineMs as in the job. */
  | { kind: "open"; deadlineMs: number }
  /** Its campaign starts nothing at the moment. */
  | { kind: "held"; reason: string }
  /** Settled, expired, cancelled, another attempt, or never heard of. */
  | { kind: "over"; reason: string };

/** A lease with what only the coordinator needs: who its agent was, and when it was last heard of. */
export interface LiveLease {
  lease: Lease;
  /** `startedAt` of the agent process that got it; another process with the same id does not inherit it. */
  agentStartedAt: number;
  heardAt: number;
}

export type Verdict =
  | { kind: "grant" }
  /** The agent asks again for what it has: its first answer was lost. */
  | { kind: "same"; lease: Lease }
  | { kind: "refuse"; reason: string; drop: boolean };

/** May this attempt start on this device? Pure. */
export function judge(request: LeaseRequest, agent: AgentInfo | null, job: JobStanding, live: ReadonlyMap<string, LiveLease>): Verdict {
  const wait = (reason: string): Verdict => ({ kind: "refuse", reason, drop: false });
  if (!agent) return wait(`agent ${request.agentId} is not registered`);
  if (!agent.devices.some((d) => d.id === request.deviceId) && request.deviceId !== builderDevice(agent.agentId))
    return wait(`device ${request.deviceId} is not one of agent ${agent.agentId}`);
  if (job.kind === "over") return { kind: "refuse", reason: job.reason, drop: true };
  const held = live.get(request.deviceId);
  if (held && isFor(held.lease, request)) {
    if (held.agentStartedAt === agent.startedAt) return { kind: "same", lease: held.lease };
    return wait(`the lease belongs to an earlier process of agent ${agent.agentId}`);
  }
  if (job.kind === "held") return wait(job.reason);
  if (agent.state !== "ready") return wait(`agent ${agent.agentId} is ${agent.state}`);
  if (held) return wait(`device ${request.deviceId} is held by job ${held.lease.jobId}, attempt ${held.lease.attempt}`);
  const elsewhere = [...live.values()].find((l) => l.lease.jobId === request.jobId);
  if (elsewhere) return wait(`job ${request.jobId} runs on device ${elsewhere.lease.deviceId}`);
  return { kind: "grant" };
}

/** Why a result must not count, or null if its lease is the current one (I3). */
export function staleness(
  live: ReadonlyMap<string, LiveLease>,
  result: { deviceId: string; agentId: string; jobId: string; attempt: number; leaseToken: number },
): string | null {
  const held = live.get(result.deviceId);
  if (!held) return `no lease is live on device ${result.deviceId}`;
  const { lease } = held;
  if (lease.token !== result.leaseToken) return `lease token ${result.leaseToken} is not the current one, ${lease.token}`;
  if (lease.jobId !== result.jobId || lease.attempt !== result.attempt)
    return `the lease is for job ${lease.jobId}, attempt ${lease.attempt}, not for ${result.jobId}, attempt ${result.attempt}`;
  if (lease.agentId !== result.agentId) return `the lease was granted to agent ${lease.agentId}, not to ${result.agentId}`;
  return null;
}

const isFor = (lease: Lease, request: LeaseRequest) =>
  lease.jobId === request.jobId && lease.attempt === request.attempt && lease.agentId === request.agentId;
