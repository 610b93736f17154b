import { clientsOf, median, quantile, type MetricName, type Workload } from "@vibeserve/shared";
import type { VerifiedRequest } from "./verify.ts";

/** The span of a run over which throughput is counted, in ms after "go". */
export interface Window {
  readonly fromMs: number;
  readonly toMs: number;
  readonly kind: "steady" | "makespan";
}

/**
 * Closed loop of C clients and at least 2·C requests: from the start to the first instant at which a client finds no request left to send, since
 * from then on fewer than C are busy. That tail lasts about one request, 1/8 of a run of 64 at C = 8, and it would rate every batching engine at
 * less than the concurrency that the target names, but an engine that serves one at a time not at all. All else (open loop, short closed loops,
 * such as a slice of C requests): the whole makespan, to the last token.
 *
 * It can't be stretched to advantage: the candidate knows neither the number of requests nor the seed; what arrives after `toMs` counts for
 * nothing, the wait before the first token counts in full; every request must still be answered in full and verified; and a candidate that
 * leaves costly requests lying until the window is over is caught by starved(). The rule depends on the workload only, so both arms get the same.
 */
export function throughputWindow(w: Workload, requests: readonly VerifiedRequest[]): Window {
  const fromMs = Math.min(...requests.map((r) => r.scheduledMs));
  const lastToken = Math.max(...requests.map((r) => r.tokenMs.at(-1) ?? NaN));
  if (w.arrival.process !== "closed" || w.requests < 2 * w.arrival.concurrency) return { fromMs, toMs: lastToken, kind: "makespan" };
  const freeAt = new Map<number, number>();
  for (const r of requests) freeAt.set(r.client, Math.max(freeAt.get(r.client) ?? 0, r.endMs));
  return { fromMs, toMs: Math.min(...freeAt.values()), kind: "steady" };
}

/** Each metric of one run, in the unit of METRICS. Tokens are verified ones, times run from the scheduled instant. */
export function metricsOf(w: Workload, requests: readonly VerifiedRequest[]): Record<MetricName, number> {
  const { fromMs, toMs } = throughputWindow(w, requests);
  const tokens = requests.reduce((sum, r) => sum + r.tokenMs.filter((t) => t <= toMs).length, 0);
  return {
    output_tokens_per_second: (1000 * tokens) / (toMs - fromMs),
    ttft_p50: median(requests.map(ttftMs)),
    // An answer of one token has no time between tokens; its wait stands for it, so that the metric always exists.
    tpot_p50: median(requests.map(tpotMs)),
    e2e_p50: median(requests.map(e2eMs)),
    request_tokens_per_second_p50: median(requests.map((r) => (1000 * r.tokenMs.length) / e2eMs(r))),
  };
}

export const ttftMs = (r: VerifiedRequest): number => (r.tokenMs[0] ?? NaN) - r.scheduledMs;
export const e2eMs = (r: VerifiedRequest): number => (r.tokenMs.at(-1) ?? NaN) - r.scheduledMs;

/** (last − first token) / (tokens − 1): per token, not per event, so speculation and coalesced events are not flattered or punished. */
export function tpotMs(r: VerifiedRequest): number {
  const n = r.tokenMs.length;
  return n < 2 ? ttftMs(r) : ((r.tokenMs.at(-1) ?? NaN) - (r.tokenMs[0] ?? NaN)) / (n - 1);
}

/** With no value beyond it, a 99th percentile at 99 % confidence needs 459 samples (MLPerf's rule): ln 0.01 / ln 0.99. */
export const P99_SAMPLES = 459;

/** Quantiles of a latency that the sample can carry. */
export function latencySummary(sample: readonly number[]): { n: number; p50: number; p90: number; p99: number | null } {
  return {
    n: sample.length,
    p50: quantile(sample, 0.5),
    p90: quantile(sample, 0.9),
    p99: sample.length >= P99_SAMPLES ? quantile(sample, 0.99) : null,
  };
}

/**
 * A request that was left lying while more than 2·C requests, all sent after it, were answered in full before its first token; null: none. First
 * come, first served gives 0, chunked prefill of a long prompt beside short ones a few. C is the concurrency, or 8 in an open loop.
 */
export function starved(w: Workload, requests: readonly VerifiedRequest[]): { index: number; overtakenBy: number } | null {
  const limit = 2 * clientsOf(w);
  for (const r of requests) {
    const first = r.tokenMs[0] ?? NaN;
    const overtakenBy = requests.filter((other) => other.scheduledMs > r.scheduledMs && other.endMs < first).length;
    if (overtakenBy > limit) return { index: r.index, overtakenBy };
  }
  return null;
}
