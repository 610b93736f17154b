import { gzipSync } from "node:zlib";
import type { BenchSpec, Certificate, Comparison, DeviceConditions, MetricName } from "@vibeserve/shared";
import type { LoadResult } from "../../loadgen/plan.ts";
import type { Side } from "./arms.ts";
import { e2eMs, latencySummary, throughputWindow, tpotMs, ttftMs, type Window } from "./metrics.ts";
import type { Quiet } from "./quiet.ts";
import type { VerifiedRequest } from "./verify.ts";

/** A counted run with everything that its figures were made from. */
export interface CountedRun {
  readonly run: number;
  readonly pair: number;
  readonly side: Side;
  readonly seed: string;
  readonly startedAt: number;
  readonly metrics: Record<MetricName, number>;
  readonly requests: readonly VerifiedRequest[];
  readonly quiet: Quiet;
  readonly conditions: DeviceConditions | null;
  readonly devices?: NonNullable<Certificate["devices"]>;
  readonly self: LoadResult["self"];
}

/** A refused run or pair; it is named, and its numbers appear nowhere else. */
export interface RefusedRun {
  /** "warm-up", or "pair 3". */
  readonly where: string;
  readonly side: Side;
  readonly reason: string;
  readonly quiet: Quiet;
  readonly answered: boolean;
}

export interface JudgedProbe {
  readonly side: Side;
  readonly run: number;
  readonly request: number;
  readonly tokens: number;
  /** False only for a baseline: a stack of ours fails the comparison by it. */
  readonly ok: boolean;
  readonly detail: string;
}

/**
 * The raw samples of a comparison as gzipped JSON, whose sha256 is the measurements' samplesRef: every token's arrival in ms after "go", so that each
 * metric can be computed again; no prompt and no served text, since the first are hidden and the second may be large.
 */
export function samplesArtifact(
  spec: BenchSpec,
  comparison: Comparison,
  runs: readonly CountedRun[],
  refused: readonly RefusedRun[],
  probes: readonly JudgedProbe[],
): Uint8Array {
  const { purpose, metric, workload, pairs, confidence } = spec;
  const content = {
    v: 1,
    kind: "bench.samples",
    spec: { purpose, metric, workload, pairs, confidence },
    comparison,
    latency: { challenger: latencies(runs, "challenger"), champion: latencies(runs, "champion") },
    runs: runs.map((r) => ({ ...r, window: windowOf(spec, r), requests: r.requests.map(compact) })),
    refused,
    probes,
  };
  return gzipSync(JSON.stringify(content));
}

function windowOf(spec: BenchSpec, r: CountedRun): Window {
  return throughputWindow(spec.workload, r.requests);
}

function latencies(runs: readonly CountedRun[], side: Side): Record<"ttftMs" | "tpotMs" | "e2eMs", ReturnType<typeof latencySummary>> {
  const all = runs.filter((r) => r.side === side).flatMap((r) => r.requests);
  return { ttftMs: latencySummary(all.map(ttftMs)), tpotMs: latencySummary(all.map(tpotMs)), e2eMs: latencySummary(all.map(e2eMs)) };
}

/** Hundredths of a millisecond: finer than the clock's own noise. */
const round = (ms: number): number => Math.round(ms * 100) / 100;

function compact(r: VerifiedRequest): object {
  return { index: r.index, client: r.client, scheduledMs: round(r.scheduledMs), tokenMs: r.tokenMs.map(round), endMs: round(r.endMs) };
}
