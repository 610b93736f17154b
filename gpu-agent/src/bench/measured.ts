import {
  digestOf,
  median,
  type ArtifactRef,
  type BenchSpec,
  type Certificate,
  type Device,
  type Measurement,
  type MetricName,
  type Tool,
} from "@vibeserve/shared";
import { worstOf } from "../device/conditions.ts";
import type { BenchArm } from "./arms.ts";
import type { CountedRun, RefusedRun } from "./samples.ts";

/** The job handler signs it; nothing here knows a key. */
export type UnsignedMeasurement = Omit<Measurement, "sig">;

/** One arm's side of a comparison: the median over its counted runs. The refused runs of both arms stand in both certificates. */
export function measurementOf(
  spec: BenchSpec,
  name: MetricName,
  arm: BenchArm,
  runs: readonly CountedRun[],
  refused: readonly RefusedRun[],
  samplesRef: ArtifactRef,
  seeds: readonly string[],
  on: { readonly device: Device; readonly leaseToken: number; readonly tools: readonly Tool[] },
): UnsignedMeasurement {
  return {
    metric: spec.metric,
    value: median(runs.map((r) => r.metrics[name])),
    samplesRef,
    seeds: [...seeds],
    workloadDigest: digestOf(spec.workload),
    role: arm.role,
    treeDigest: arm.treeDigest,
    buildDigest: arm.buildDigest,
    engine: arm.engine,
    device: on.device,
    leaseToken: on.leaseToken,
    toolVersions: [...on.tools],
    certificate: certificateOf(arm, runs, refused, on.device.simulated),
  };
}

/** Worst values over the counted runs. `quiet` is true by construction: a run beyond a limit is not counted. */
function certificateOf(arm: BenchArm, runs: readonly CountedRun[], refused: readonly RefusedRun[], simulated: boolean): Certificate {
  const worst = (of: (q: CountedRun["quiet"]) => number): number => Math.max(...runs.map((r) => of(r.quiet)));
  const device = worstOf(runs.flatMap((r) => r.conditions ?? []));
  const each = Map.groupBy(
    runs.flatMap((r) => r.devices ?? []),
    (d) => d.id,
  );
  const devices = [...each].map(([id, seen]) => ({ id, conditions: worstOf(seen.flatMap((d) => d.conditions ?? [])) }));
  return {
    quiet: true,
    stealPct: worst((q) => q.stealPct),
    foreignCpuPct: worst((q) => q.foreignCpuPct),
    resolutionPct: worst((q) => q.resolutionPct),
    scheduleSlipMs: worst((q) => q.scheduleSlipP99Ms),
    loopDelayMs: worst((q) => q.loopDelayP99Ms),
    refused: refused.map((r) => `${r.where}, ${r.side}: ${r.reason}`),
    sandbox: arm.stack.sandbox,
    simulated,
    ...(device === null ? {} : { device }),
    ...(devices.length === 0 ? {} : { devices }),
  };
}
