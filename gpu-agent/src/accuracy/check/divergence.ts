import { CandidateFault } from "./candidate-fault.ts";

/** Under this probability the rest bucket is rounding noise of 64 float32 numbers. */
const REST_FLOOR = 1e-6;
/** What a sum of probabilities may exceed 1 by: float32 rounding of a softmax over 49,152 ids. */
const SUM_TOLERANCE = 1e-3;

/** The reference's most likely ids after one position, most likely first, and the candidate's word on the same ids. */
export interface PositionPair {
  readonly ids: ArrayLike<number>;
  readonly reference: ArrayLike<number>;
  readonly candidate: ArrayLike<number>;
}

/**
 * Kullback–Leibler divergence, reference against candidate, in nat, over the given ids and one bucket for all others. A lower bound of the
 * divergence over the whole vocabulary (merging events can only lower it). Throws CandidateFault where the candidate's probabilities exceed 1.
 */
export function divergence({ reference, candidate }: PositionPair): number {
  let sum = 0;
  let [p, q] = [0, 0];
  for (let i = 0; i < reference.length; i++) {
    const [lp, lq] = [reference[i]!, candidate[i]!];
    p += Math.exp(lp);
    q += Math.exp(lq);
    sum += Math.exp(lp) * (lp - lq);
  }
  if (q > 1 + SUM_TOLERANCE) throw new CandidateFault(`the probabilities at one position add up to ${q.toFixed(4)}`);
  const [restP, restQ] = [Math.max(REST_FLOOR, 1 - p), Math.max(REST_FLOOR, 1 - q)];
  return Math.max(0, sum + restP * Math.log(restP / restQ));
}

/** Whether the candidate's most likely of the ids is the reference's. */
export function sameTop({ reference, candidate }: PositionPair): boolean {
  let best = 0;
  for (let i = 1; i < reference.length; i++) if (candidate[i]! > candidate[best]!) best = i;
  return best === 0;
}

/** How much the reference prefers its first choice over its second, in nat. */
export function referenceMargin({ reference }: PositionPair): number {
  return (reference[0] ?? 0) - (reference[1] ?? -Infinity);
}

/** The five likeliest ids as `id "text" −1.23`, for a report. */
export function topFive(ids: ArrayLike<number>, logprobs: ArrayLike<number>, text: (id: number) => string): string {
  return Array.from({ length: ids.length }, (_, i) => ({ id: ids[i]!, logprob: logprobs[i]! }))
    .sort((a, b) => b.logprob - a.logprob)
    .slice(0, 5)
    .map(({ id, logprob }) => `${id} ${JSON.stringify(text(id))} ${logprob.toFixed(3)}`)
    .join(", ");
}
