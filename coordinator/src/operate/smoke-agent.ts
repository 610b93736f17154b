import { setTimeout as sleep } from "node:timers/promises";
import { createRng, METRICS, RESERVED_LABEL, type Device, type Target } from "@vibeserve/shared";
import { outcomeOf } from "../simulate/device-model.ts";
import { Faults } from "../simulate/fleet-file.ts";
import { SimulatedAgent } from "../simulate/simulated-agent.ts";

/** The planner keeps three minutes for crowning and takes an experiment for a minute; this lets it plan. The jobs sleep for hundredths of a second. */
const BUDGET_S = 600;
const EXPERIMENTS = 2;
const JOB = { medianS: 0.02, sigma: 0.2 };
/** True rate of each tree over the one that was built before it. */
const FASTER = 1.5;

/** Reserved for the one target that asks for it, so that no real campaign that waits for a device gets this one. */
const smokeDevice = (agentId: string): Device => ({
  id: `${agentId}-cpu`,
  kind: "cpu",
  name: "simulated processor (smoke)",
  isa: "avx2",
  isaBits: ["avx2", "fma", "f16c"],
  cores: 2,
  cpus: "0,1",
  memBytes: 2 ** 30,
  labels: { "vibeserve.dev/device.kind": "cpu", [RESERVED_LABEL]: agentId },
  simulated: true,
});

/** Real in all that the coordinator does: seed, skills, planner, git, scheduler, log. Nothing is built or measured. */
export const smokeTarget = (agentId: string, seed: string): Target => ({
  v: 1,
  kind: "target",
  name: "smoke-simulated",
  model: { name: "simulated", file: "simulated.gguf", sha256: "0".repeat(64) },
  device: { [RESERVED_LABEL]: agentId },
  workload: load(128, 96, 48),
  slice: load(20, 8, 8),
  objective: METRICS.output_tokens_per_second,
  accuracy: { class: "exact" },
  seed,
  agent: "playbook",
  budget: { wallS: BUDGET_S, experiments: EXPERIMENTS, usd: 0 },
  baselines: [],
});

const load = (prompt: number, output: number, requests: number): Target["workload"] => ({
  arrival: { process: "closed", concurrency: 8 },
  prompt: { distribution: "fixed", tokens: prompt },
  output: { distribution: "fixed", tokens: output },
  requests,
});

/** An agent of the real protocol on a device that finds each new tree half as fast again as the one before. */
export async function startSmokeAgent(
  of: { url: string; ca?: string | undefined; claim?: string | undefined; agentId: string; seed: string },
  failed: (error: unknown) => void,
): Promise<SimulatedAgent> {
  const device = smokeDevice(of.agentId);
  const random = createRng(of.agentId);
  const trees: string[] = [];
  return SimulatedAgent.start({
    ...of,
    pool: of.agentId,
    devices: [device],
    failed,
    work: async (job, lease, agent) => {
      if (job.spec.kind === "build" && !trees.includes(job.spec.treeDigest)) trees.push(job.spec.treeDigest);
      const on = {
        device,
        jobs: { build: JOB, check: JOB, bench: JOB },
        noise: 0.005,
        faults: Faults.parse({ candidate: 0, device: 0, harness: 0, network: 0, agentLossPerDay: 0 }),
        rateOf: ({ treeDigest }: { treeDigest: string }) => 100 * FASTER ** trees.indexOf(treeDigest),
        leaseToken: lease.token,
        sign: (value: unknown) => agent.sign(value),
      };
      const { ms, outcome } = outcomeOf(job, on, random);
      await sleep(ms);
      return outcome;
    },
  });
}
