import {
  ratioInterval,
  sha256,
  type ArtifactRef,
  type BenchSpec,
  type Device,
  type Job,
  type Lease,
  type Outcome,
} from "@vibeserve/shared";
import { simulatedMeasurement } from "../../coordinator/src/simulate/device-model.ts";

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

/** The outcome that an honest agent would report if the device were real. Every measurement says that it is simulated. */
export async function simulatedOutcome(job: Job, lease: Lease, as: Simulated): Promise<Outcome> {
  const { spec } = job;
  switch (spec.kind) {
    case "build":
      return { status: "built", buildDigest: sha256(`build of ${spec.treeDigest}`), cached: false, seconds: 0.1, bytes: 1 };
    case "check":
      return {
        status: "checked",
        seconds: 0.1,
        report: { ok: true, level: spec.level, gates: [], positions: 500, servedTokens: 100, firstFailure: null },
      };
    case "bench":
      return measured(spec, lease, as);
    case "profile": {
      const regions = [{ name: "linear", share: 0.8, samples: 80 }];
      const profile = { source: "perf" as const, regions, samples: 100, observerEffect: 1, note: "simulated" };
      return { status: "profiled", profile, roofline: null, seconds: 0.1 };
    }
    case "exec":
      return { status: "ran", exitCode: 0, timedOut: false, stdout: "simulated\n", stderr: "", seconds: 0.1 };
    case "baseline":
      return {
        status: "failed",
        failure: { attribution: "harness", code: "not-installed", message: "a simulated agent installs nothing", logTail: "" },
      };
  }
}

async function measured(spec: BenchSpec, lease: Lease, as: Simulated): Promise<Outcome> {
  const challenger = await speedOfArm(spec.challenger, as.speedOf);
  const champion = await speedOfArm(spec.champion, as.speedOf);
  const ratios = Array.from({ length: spec.pairs.min }, (_, i) => (challenger / champion) * (1 + 0.001 * (i % 3)));
  const confidence = spec.confidence;
  const interval = ratioInterval(ratios, confidence);
  const on = { device: as.device, leaseToken: lease.token, sign: as.sign };
  return {
    status: "measured",
    seconds: 0.1,
    comparison: {
      ...interval,
      hi: Math.min(interval.hi, 1e6),
      confidence,
      pairs: ratios.length,
      ratios,
      stop: challenger > champion ? "better" : "worse",
    },
    challenger: simulatedMeasurement(spec, spec.challenger, 100 * challenger, on),
    champion: simulatedMeasurement(spec, spec.champion, 100 * champion, on),
  };
}

async function speedOfArm(arm: BenchSpec["challenger"], speedOf: SpeedOf): Promise<number> {
  return arm.stack.source === "build" ? speedOf(arm.stack.build.tree) : 1;
}
