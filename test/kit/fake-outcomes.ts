import { createRng, type ArtifactRef, type BuiltStack, type Device, type Job, type Lease, type Outcome } from "@vibeserve/shared";
import { outcomeOf } from "../../coordinator/src/simulate/device-model.ts";
import { Faults } from "../../coordinator/src/simulate/fleet-file.ts";

/** Speed of a stack by the tar of its tree; what a simulated device "measures". */
export type SpeedOf = (tree: ArtifactRef) => Promise<number>;

export const simulatedDevice = (agentId: string): Device => ({
  id: `${agentId}-cpu`,
  kind: "cpu",
  name: "simulated processor",
  isa: "avx2",
  isaBits: ["avx2", "fma", "f16c"],
  cores: 2,
  cpus: "0,1",
  memBytes: 1,
  labels: { "vibeserve.dev/device.kind": "cpu" },
  simulated: true,
});

/** Who measures, on what, and with which key it signs. */
export interface Simulated {
  device: Device;
  speedOf: SpeedOf;
  sign: (value: unknown) => string;
}

/** Everything takes no time, nothing fails, and each pair says nearly the same. */
const moment = { medianS: 0.1, sigma: 0 };
const QUICK = {
  jobs: { build: moment, check: moment, bench: moment },
  noise: 0.001,
  faults: Faults.parse({ candidate: 0, device: 0, harness: 0, network: 0 }),
};

/** The outcome that an honest agent would report if the device were real, by the simulator's model of one. */
export async function simulatedOutcome(job: Job, lease: Lease, { device, speedOf, sign }: Simulated): Promise<Outcome> {
  const { spec } = job;
  const speeds = new Map<string, number>();
  for (const { stack } of spec.kind === "bench" ? [spec.challenger, spec.champion] : [])
    if (stack.source === "build") speeds.set(stack.build.tree.digest, await speedOf(stack.build.tree));
  const rateOf = ({ tree }: BuiltStack) => 100 * (speeds.get(tree.digest) ?? 1);
  return outcomeOf(job, { ...QUICK, device, rateOf, leaseToken: lease.token, sign }, createRng("quiet")).outcome;
}
