import type { AgentInfo, CampaignFact, Target } from "@vibeserve/shared";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import { matching, missingLabels, type AgentRegistry } from "./agent-registry.ts";

/** Effect `bind`: the first ready device that carries the target's labels, now or when one registers. */
export async function bindDevice(registry: AgentRegistry, context: EffectContext): Promise<CampaignFact> {
  const { target } = context.campaign;
  const look = (): CampaignFact | null => {
    const found = matching(registry.list(), target.device)[0];
    return found ? { type: "device.bound", agent: found.agent, device: found.device } : null;
  };
  return new Promise<CampaignFact>((resolve, reject) => {
    const end = () => {
      forget();
      context.signal.removeEventListener("abort", aborted);
      context.waits(null);
    };
    const aborted = () => {
      end();
      reject(new Error("stopped while waiting for a device"));
    };
    const check = () => {
      const fact = look();
      if (!fact) {
        context.waits(waitingFor(target, registry.list()));
        return;
      }
      end();
      resolve(fact);
    };
    const forget = registry.onChange(check);
    context.signal.addEventListener("abort", aborted, { once: true });
    check();
  });
}

function waitingFor(target: Target, agents: readonly AgentInfo[]): string {
  const wanted = Object.entries(target.device).map(([key, value]) => `${key}=${value}`);
  const here = agents.map((agent) => {
    if (agent.state !== "ready") return `${agent.agentId} is ${agent.state}`;
    const lacks = agent.devices.map((device) => `${device.id} lacks ${missingLabels(device, target.device).join(", ")}`);
    return `${agent.agentId}: ${lacks.join("; ") || "no devices"}`;
  });
  return `waits for a ready agent with ${wanted.join(", ") || "any device"}; registered: ${here.join(" | ") || "none"}`;
}
