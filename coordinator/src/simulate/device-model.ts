import {
  digestOf,
  improvement,
  ratioInterval,
  sequentialStop,
  sha256,
  type BenchSpec,
  type BuiltStack,
  type Certificate,
  type Device,
  type Job,
  type Measurement,
  type Outcome,
  type Rng,
} from "@vibeserve/shared";
import { SEED } from "../campaign/campaign.machine.ts";
import type { Duration, Faults, FleetKind } from "./fleet-file.ts";
import type { z } from "zod";

/** A device that computes nothing, and says so in every record. */
export interface SimulatedDevice {
  device: Device;
  jobs: NonNullable<FleetKind["jobs"]>;
  noise: number;
  faults: z.infer<typeof Faults>;
  /** True rate of a stack on this device, in the metric's unit. */
  rateOf: (stack: BuiltStack) => number;
  leaseToken: number;
  /** Signs as an agent does; a simulation that has no agents gives "". */
  sign: (value: unknown) => string;
}

/** The check before crowning has 2,000 positions, a screening 500, and both load the model. */
const CROWN_CHECK = 3;
/** Of a command or a profile that an implementing agent asks for: seconds, not minutes. */
const SHORT: Duration = { medianS: 8, sigma: 0.5 };

/** How long a job takes there and how it ends. The same job, device and randomness give the same answer; virtual time and simulated agents both ask here. */
export function outcomeOf(job: Job, on: SimulatedDevice, random: Rng): { ms: number; outcome: Outcome } {
  const { spec } = job;
  const { build, check, bench } = on.jobs;
  const failure = fails(job, on, random);
  switch (spec.kind) {
    case "build":
      return timed(draw(build, random), failure, random, (seconds) => ({
        status: "built",
        buildDigest: sha256(`build of ${spec.treeDigest}`),
        cached: false,
        seconds,
        bytes: 1,
      }));
    case "check": {
      const { level } = spec;
      const report = { ok: true, level, gates: [], positions: level === "crown" ? 2_000 : 500, servedTokens: 100, firstFailure: null };
      const s = draw(check, random) * (level === "crown" ? CROWN_CHECK : 1);
      return timed(s, failure, random, (seconds) => ({ status: "checked", report, seconds }));
    }
    case "bench": {
      const [challenger, champion] = [rate(spec.challenger, on), rate(spec.champion, on)];
      const truth = improvement(spec.metric, challenger, champion);
      const ratios: number[] = [];
      let stop = null;
      while (stop === null) {
        ratios.push(truth * Math.exp(on.noise * random.normal()));
        stop = sequentialStop(ratios, { ...spec.pairs, confidence: spec.confidence });
      }
      const s = (draw(bench, random) * ratios.length) / spec.pairs.min;
      const { point, lo, hi } = ratioInterval(ratios, spec.confidence);
      const comparison = { point, lo, hi: Math.min(hi, 1e6), confidence: spec.confidence, pairs: ratios.length, ratios, stop };
      return timed(s, failure, random, (seconds) => ({
        status: "measured",
        comparison,
        challenger: simulatedMeasurement(spec, spec.challenger, challenger, on),
        champion: simulatedMeasurement(spec, spec.champion, champion, on),
        seconds,
      }));
    }
    case "profile": {
      const regions = [{ name: "linear", share: 0.8, samples: 80 }];
      const profile = { source: "perf" as const, regions, samples: 100, observerEffect: 1, note: "simulated" };
      return timed(draw(SHORT, random), failure, random, (seconds) => ({ status: "profiled", profile, roofline: null, seconds }));
    }
    case "exec":
      return timed(draw(SHORT, random), failure, random, (seconds) => ({
        status: "ran",
        exitCode: 0,
        timedOut: false,
        stdout: "simulated\n",
        stderr: "",
        seconds,
      }));
    case "baseline":
      return { ms: 1_000, outcome: failed("harness", "not-installed", "a simulated agent installs no engine") };
  }
}

export const draw = ({ medianS, sigma }: Duration, random: Rng): number => medianS * Math.exp(sigma * random.normal());

function timed(
  seconds: number,
  failure: Outcome | null,
  random: Rng,
  outcome: (seconds: number) => Outcome,
): { ms: number; outcome: Outcome } {
  const s = failure ? seconds * random.next() : seconds;
  return { ms: Math.max(1, Math.round(1_000 * s)), outcome: failure ?? outcome(s) };
}

/** Shipped seeds build and pass; what comes after a screening has passed its check before. */
function fails({ spec, experiment }: Job, { faults }: SimulatedDevice, random: Rng): Outcome | null {
  const own = experiment !== SEED && (spec.kind === "build" || (spec.kind === "check" && spec.level === "screen"));
  let u = random.next();
  for (const attribution of ["device", "harness", "network", ...(own ? (["candidate"] as const) : [])] as const) {
    if (u < faults[attribution]) return failed(attribution, "simulated", `a simulated failure of the ${attribution}`);
    u -= faults[attribution];
  }
  return null;
}

const failed = (attribution: "candidate" | "device" | "harness" | "network", code: string, message: string): Outcome => ({
  status: "failed",
  failure: { attribution, code, message, logTail: "" },
});

const rate = ({ stack }: BenchSpec["challenger"], on: SimulatedDevice): number => (stack.source === "build" ? on.rateOf(stack.build) : 1);

/** Nothing ran, so nothing disturbed it. */
export const SIMULATED_CERTIFICATE: Certificate = {
  ...{ quiet: true, stealPct: 0, foreignCpuPct: 0, scheduleSlipMs: 0, loopDelayMs: 0, refused: [] },
  ...{ sandbox: "none", simulated: true },
};

/** What a device that computes nothing says of one arm; its certificate says that it is simulated. */
function simulatedMeasurement(spec: BenchSpec, { role, stack }: BenchSpec["challenger"], value: number, on: SimulatedDevice): Measurement {
  const build = stack.source === "build" ? stack.build : null;
  const unsigned: Omit<Measurement, "sig"> = {
    metric: spec.metric,
    value,
    samplesRef: { digest: sha256("simulated"), bytes: 1 },
    seeds: ["simulated"],
    workloadDigest: digestOf(spec.workload),
    role,
    treeDigest: build?.treeDigest ?? null,
    buildDigest: build?.buildDigest ?? null,
    engine: stack.source === "build" ? null : { name: stack.engine, version: "simulated", setting: stack.setting ?? "simulated" },
    device: on.device,
    leaseToken: on.leaseToken,
    toolVersions: [],
    certificate: SIMULATED_CERTIFICATE,
  };
  return { ...unsigned, sig: on.sign(unsigned) };
}
