import type { AgentInfo, Device } from "@vibeserve/shared";

/** What an agent that computes nothing registers. */
export const simulatedAgent = (agentId: string, publicKey: string, pool: string, devices: Device[], startedAt: number): AgentInfo => ({
  ...{ v: 1, kind: "agent", agentId, publicKey, version: "0.0.0", pools: [pool], devices, startedAt },
  ...{ tools: [], sandbox: "none", state: "ready", pid: process.pid, host: "simulated" },
});
