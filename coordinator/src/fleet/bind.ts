import { devicePool, type AgentInfo, type CampaignFact, type Target } from "@vibeserve/shared";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import { matching, missingLabels, together, type AgentRegistry } from "./agent-registry.ts";

/** Effect `bind`: the first ready device that carries the target's labels, now or when one registers. */
export async function bindDevice(registry: AgentRegistry, context: EffectContext): Promise<CampaignFact> {
  const { target } = context.campaign;
  const look = (agents: readonly AgentInfo[]): CampaignFact | null => {
    const found = matching(agents, target)[0];
    return found ? { type: "device.bound", agent: found.agent, device: found.device } : null;
  };
  return new Promise<CampaignFact>((resolve, reject) => {
    let telling: NodeJS.Immediate | undefined;
    const end = () => {
      forget();
      clearImmediate(telling);
      context.signal.removeEventListener("abort", aborted);
      context.waits(null);
    };
    const aborted = () => {
      end();
      reject(new Error("stopped while waiting for a device"));
    };
    const tell = () => context.waits(waitingFor(target, registry.list()));
    const check = (agents: readonly AgentInfo[]) => {
      const fact = look(agents);
      if (!fact) {
        // Once for all that join together: ten thousand do after a restart.
        clearImmediate(telling);
        telling = setImmediate(tell);
        return;
      }
      end();
      resolve(fact);
    };
    const forget = registry.onChange(({ kind, agent }) => check(kind === "left" || kind === "withdrawn" ? [] : [agent]));
    context.signal.addEventListener("abort", aborted, { once: true });
    tell();
    check(registry.list());
  });
}

/** A reason is read by people. */
const NAMED = 20;

function waitingFor(target: Target, agents: readonly AgentInfo[]): string {
  const wanted = Object.entries(target.device).map(([key, value]) => `${key}=${value}`);
  const here = agents.slice(0, NAMED).map((agent) => {
    if (agent.state !== "ready") return `${agent.agentId} is ${agent.state}`;
    const lacks = agent.devices.map((device) => {
      const missing = missingLabels(device, target.device);
      if (missing.length > 0) return `${device.id} lacks ${missing.join(", ")}`;
      return `${device.id} is one of ${together(agent, device, target.device).length} in pool ${devicePool(agent, device)}`;
    });
    return `${agent.agentId}: ${lacks.join("; ") || "no devices"}`;
  });
  const more = agents.length > NAMED ? [`${agents.length - NAMED} more`] : [];
  const many = (target.deviceCount ?? 1) > 1 ? `${target.deviceCount} devices of one pool that have ` : "";
  return `waits for a ready agent with ${many}${wanted.join(", ") || "any device"}; registered: ${[...here, ...more].join(" | ") || "none"}`;
}
