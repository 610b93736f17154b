import type { AgentInfo, Device, Job, JobResult, Lease, Outcome } from "@vibeserve/shared";

/** What an agent that computes nothing registers. */
export const simulatedAgent = (agentId: string, publicKey: string, pool: string, devices: Device[], startedAt: number): AgentInfo => ({
  ...{ v: 1, kind: "agent", agentId, publicKey, version: "0.0.0", pools: [pool], devices, startedAt },
  ...{ tools: [], sandbox: "none", state: "ready", pid: process.pid, host: "simulated" },
});

/** What it says of a job, unsigned. */
export const simulatedResult = (
  { id: jobId, campaign, attempt }: Job,
  { agentId, deviceId, token: leaseToken }: Pick<Lease, "agentId" | "deviceId" | "token">,
  { startedAt, endedAt }: { startedAt: number; endedAt: number },
  outcome: Outcome,
): Omit<JobResult, "sig"> => ({
  ...{ v: 1, kind: "result", jobId, campaign, attempt, agentId, deviceId, leaseToken },
  ...{ sandbox: "none", startedAt, endedAt, outcome, log: null },
});
