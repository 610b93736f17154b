import type { ScoredSequence } from "../pool/record.ts";
import type { Candidate } from "./candidate.ts";
import { divergence, referenceMargin, sameTop, topFive } from "./divergence.ts";
import type { AccuracyLimits } from "./gates.ts";
import { BUCKET_MIN_POSITIONS, DEPTH_BUCKETS } from "./gates.ts";
import type { Findings } from "./findings.ts";

export interface PositionResult {
  readonly where: string;
  /** Position in its sequence. */
  readonly depth: number;
  readonly kl: number;
  readonly same: boolean;
  readonly margin: number;
  /** Log-probability of the actual next token, candidate minus reference; NaN at a sequence's end. */
  readonly nextDelta: number;
  readonly candidate: string;
  readonly reference: string;
}

/** Asks the candidate for the reference's ids at every scored position of one sequence. Throws CandidateFault. */
export async function compareSequence(candidate: Candidate, s: ScoredSequence, text: (id: number) => string): Promise<PositionResult[]> {
  const { from, positions, top, ids, logprobs, next } = s.scores;
  // Ascending, so that the order of the question does not tell the reference's ranking. The next token is known to the candidate anyway.
  const order = Array.from({ length: positions }, (_, p) => {
    const own = Array.from(ids.subarray(p * top, (p + 1) * top));
    const following = s.tokens[from + p + 1];
    return (following === undefined || own.includes(following) ? own : [...own, following]).sort((a, b) => a - b);
  });
  const query = s.tokens.map((_, j) => (j < from ? [] : order[j - from]!));
  const rows = await candidate.score(s.tokens, query);
  return order.map((asked, p): PositionResult => {
    const answer = new Map(asked.map((id, i) => [id, rows[from + p]![i]!]));
    const own = ids.subarray(p * top, (p + 1) * top);
    const reference = logprobs.subarray(p * top, (p + 1) * top);
    const pair = { ids: own, reference, candidate: Array.from(own, (id) => answer.get(id)!) };
    const following = s.tokens[from + p + 1];
    return {
      where: `sequence ${s.name}, position ${from + p}`,
      depth: from + p,
      kl: divergence(pair),
      same: sameTop(pair),
      margin: referenceMargin(pair),
      nextDelta: following === undefined ? NaN : answer.get(following)! - next[p]!,
      candidate: topFive(own, pair.candidate, text),
      reference: topFive(own, reference, text),
    };
  });
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);

/** The worst position by a measure: what a report shows of a failed gate. */
function worst(results: readonly PositionResult[], by: (r: PositionResult) => number): PositionResult | undefined {
  return results.reduce<PositionResult | undefined>((a, r) => (a === undefined || by(r) > by(a) ? r : a), undefined);
}

/** Turns compared positions into gates. `prefix` names the run where there are several (mutated weights). */
export function judgePositions(findings: Findings, results: readonly PositionResult[], limits: AccuracyLimits, prefix = ""): void {
  const kls = results.map((r) => r.kl).sort((a, b) => a - b);
  const byKl = worst(results, (r) => r.kl);
  const gate = (name: string, value: number, unit: string, limit: string, ok: boolean, example = byKl): void =>
    findings.gate({ name: prefix + name, value, unit, limit, ok }, example);

  gate("mean KL", mean(kls), "nat", `≤ ${limits.meanKl}`, results.length > 0 && mean(kls) <= limits.meanKl);
  const tail = kls[Math.max(0, Math.ceil(0.999 * kls.length) - 1)] ?? 0;
  gate("99.9th percentile of KL", tail, "nat", `≤ ${limits.tailKl}`, tail <= limits.tailKl);
  for (const bucket of DEPTH_BUCKETS) {
    const within = results.filter((r) => r.depth >= bucket.from && r.depth < bucket.to);
    if (within.length < BUCKET_MIN_POSITIONS) continue;
    const value = mean(within.map((r) => r.kl));
    const example = worst(within, (r) => r.kl);
    gate(`mean KL at depth ${bucket.name}`, value, "nat", `≤ ${limits.depthMeanKl}`, value <= limits.depthMeanKl, example);
  }
  const flips = results.filter((r) => !r.same);
  const boldest = worst(flips, (r) => r.margin);
  const agreement = atLeast(results.length - flips.length, results.length, limits.top1);
  gate("top-1 agreement", agreement.value, "fraction", agreement.limit, agreement.ok, boldest);
  if (limits.confidentMargin !== null) {
    const missed = flips.filter((r) => r.margin > limits.confidentMargin!).length;
    gate(
      `first choice missed where the reference prefers it by over ${limits.confidentMargin} nat`,
      missed,
      "positions",
      "0",
      missed === 0,
      boldest,
    );
  }
  const deltas = results.map((r) => r.nextDelta).filter((d) => !Number.isNaN(d));
  const shift = mean(deltas);
  // Two standard errors of the paired differences: on 500 positions honest rounding alone moves the ratio by 0.1 to 0.2 %.
  const error = 2 * Math.sqrt(mean(deltas.map((d) => (d - shift) ** 2)) / Math.max(1, deltas.length));
  const beyond = Math.max(0, Math.abs(shift) - error);
  const unlucky = worst(results, (r) => (Number.isNaN(r.nextDelta) ? 0 : -r.nextDelta));
  gate(
    "perplexity ratio",
    Math.exp(-shift),
    "ratio",
    `within ${limits.perplexity} of 1, beyond two standard errors (${error.toFixed(5)})`,
    Math.expm1(beyond) <= limits.perplexity,
    unlucky,
  );
}

/** A fraction that must be at least `limit`, less two standard errors of a fraction at the limit: a screen's 500 positions must not fail by luck. */
function atLeast(hits: number, n: number, limit: number): { value: number; limit: string; ok: boolean } {
  const slack = 2 * Math.sqrt((limit * (1 - limit)) / Math.max(1, n));
  const value = hits / Math.max(1, n);
  return { value, limit: `≥ ${limit}, less two standard errors (${slack.toFixed(5)})`, ok: n > 0 && value >= limit - slack };
}
