import { setTimeout as sleep } from "node:timers/promises";
import type { FakeAgent } from "../kit/fake-agent.ts";
import type { RealCoordinator } from "../kit/real-coordinator.ts";

/** An agent that has had no work for so long ends, as `--exit-when-idle` has it. */
const LINGER_MS = 400;

/** Runs a pod's agent until it had nothing to do for a while. joined: it is registered. */
export async function runPodAgent(real: RealCoordinator, name: string, joined: () => void = () => undefined): Promise<void> {
  let [busy, idleSince] = [0, Date.now()];
  const agent: FakeAgent = await real.agent(name, {
    work: async (job, lease) => {
      busy++;
      try {
        return await agent.outcome(job, lease);
      } finally {
        busy--;
        idleSince = Date.now();
      }
    },
  });
  joined();
  while (busy > 0 || Date.now() - idleSince < LINGER_MS) await sleep(50);
  await agent.withdraw();
  await sleep(100);
  await agent[Symbol.asyncDispose]();
}
