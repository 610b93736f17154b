import { builderDevice, devicePool, onProcessors, type AgentInfo, type Job, type JobKind } from "@vibeserve/shared";
import type { SchedulableDevice, SchedulableJob, Slot } from "../schedule/model.ts";
import type { Eligible } from "./builders.ts";
import type { Health } from "./health.machine.ts";

/** An agent's devices, each in its own pool, and its builder in the agent's first, as the scheduler sees them. All that runs on the machine's processors is one domain. */
export function schedulableDevices(agent: AgentInfo, health: (deviceId: string) => Health = () => "good"): SchedulableDevice[] {
  const [pool = ""] = agent.pools;
  const processors = `processors-${agent.machine ?? agent.agentId}`;
  const common = {
    agentId: agent.agentId,
    pool,
    state: agent.state,
    health: "good" as const,
    simulated: agent.devices.length > 0 && agent.devices.every((d) => d.simulated),
  };
  return [
    ...agent.devices.map((d) => ({
      ...common,
      id: d.id,
      pool: devicePool(agent, d),
      slot: "device" as const,
      domain: onProcessors(d) ? processors : d.id,
      health: health(d.id),
      simulated: d.simulated,
    })),
    { ...common, id: builderDevice(agent.agentId), slot: "builder", domain: processors },
  ];
}

export const slotOf = (kind: JobKind): Slot => (kind === "build" ? "builder" : "device");

/** avoid: devices that must not take it, where another can. */
export function schedulableJob(
  job: Job,
  simulated: boolean,
  expectedMs: number,
  where: Eligible,
  avoid: readonly string[],
  canary: boolean,
): SchedulableJob {
  const { id, attempt, campaign, spec, deviceCount: devices = 1 } = job;
  const { kind } = spec;
  return { id, attempt, campaign, kind, ...where, slot: slotOf(kind), devices, simulated, avoid, expectedMs, canary };
}
