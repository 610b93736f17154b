import type { BenchSpec, Rng } from "@vibeserve/shared";
import type { Side } from "./arms.ts";
import type { VerifiedRequest } from "./verify.ts";
import type { BenchRequest } from "./workload.ts";

/** Judges served ids by the evaluator's reference: each must be its greedy choice, or within the margin rule of it. */
export type Judge = (
  promptIds: readonly number[],
  servedIds: readonly number[],
  signal: AbortSignal,
) => Promise<{ readonly ok: boolean; readonly detail: string }>;

/** One served answer that was picked for judging, after it was served. */
export interface Probe {
  readonly run: number;
  readonly request: number;
  readonly promptIds: readonly number[];
  readonly servedIds: readonly number[];
}

/** Served answers of one run, kept until the arm's probes are drawn. */
export interface ServedRun {
  readonly run: number;
  readonly requests: readonly BenchRequest[];
  readonly verified: readonly VerifiedRequest[];
}

/**
 * How many answers of each arm are judged. The reference reads about 130 tokens a second on two cores, so an answer of the chat workload costs it 2 s: two
 * of a screened challenger, four where a crown or a published ratio hangs on it. The other arm was a challenger before; one answer shows that it is
 * still itself.
 */
export function probesOf(purpose: BenchSpec["purpose"]): Record<Side, number> {
  return purpose === "screen" ? { challenger: 2, champion: 0 } : { challenger: 4, champion: 1 };
}

/**
 * Draws `count` different answers out of all that an arm served in its counted runs. Any request may be the one, and the choice is made when all are
 * answered, so a cheat in a fraction f of them escapes with (1 − f)^count per comparison; and each comparison draws anew.
 */
export function drawProbes(runs: readonly ServedRun[], count: number, rng: Rng): Probe[] {
  const all = runs.flatMap((r) => r.verified.map((v) => ({ r, v })));
  const picked: Probe[] = [];
  while (picked.length < count && all.length > 0) {
    const [one] = all.splice(rng.int(all.length), 1);
    const request = one && one.r.requests[one.v.index];
    if (one && request) picked.push({ run: one.r.run, request: one.v.index, promptIds: request.promptIds, servedIds: one.v.ids });
  }
  return picked;
}
