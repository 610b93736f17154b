import { createRng } from "./random.ts";

/** Linear interpolation between order statistics (type 7 of Hyndman & Fan 1996). q in [0, 1]; throws on an empty sample. */
export function quantile(sample: readonly number[], q: number): number {
  if (sample.length === 0) throw new RangeError("quantile of an empty sample");
  const sorted = [...sample].sort((x, y) => x - y);
  const h = (sorted.length - 1) * q;
  const below = sorted[Math.floor(h)] ?? NaN;
  const above = sorted[Math.ceil(h)] ?? NaN;
  return below + (above - below) * (h - Math.floor(h));
}

export const median = (sample: readonly number[]): number => quantile(sample, 0.5);

export function geometricMean(sample: readonly number[]): number {
  return Math.exp(sample.reduce((sum, x) => sum + Math.log(x), 0) / sample.length);
}

/** Two-sided critical values of Student's t for 95 % and 99 %, by degrees of freedom 1…30, then the normal limit. */
const T95 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086,
];
const T99 = [
  63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.25, 3.169, 3.106, 3.055, 3.012, 2.977, 2.947, 2.921, 2.898, 2.878, 2.861,
  2.845,
];

export interface Interval {
  point: number;
  lo: number;
  hi: number;
}

/**
 * Interval of the geometric mean of per-pair ratios. From 6 pairs on: percentile bootstrap over pairs (Efron 1979), 4,000 resamples, seeded so
 * that the same ratios give the same interval. Below 6 pairs the bootstrap of so few values is far too narrow, so Student's t on the
 * logarithms is used instead; with one pair there is no interval (lo = 0, hi = ∞).
 */
export function ratioInterval(ratios: readonly number[], confidence: number): Interval {
  const logs = ratios.map((r) => Math.log(r));
  const n = logs.length;
  if (n === 0) throw new RangeError("interval of no pairs");
  const mean = logs.reduce((a, b) => a + b, 0) / n;
  if (n === 1) return { point: Math.exp(mean), lo: 0, hi: Infinity };
  if (n < 6) {
    const sd = Math.sqrt(logs.reduce((s, x) => s + (x - mean) ** 2, 0) / (n - 1));
    const t = (confidence >= 0.99 ? T99 : T95)[n - 2] ?? 1.96;
    const half = (t * sd) / Math.sqrt(n);
    return { point: Math.exp(mean), lo: Math.exp(mean - half), hi: Math.exp(mean + half) };
  }
  const rng = createRng(`bootstrap ${ratios.join(",")}`);
  const means: number[] = [];
  for (let b = 0; b < 4000; b++) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += logs[rng.int(n)] ?? 0;
    means.push(sum / n);
  }
  const tail = (1 - confidence) / 2;
  return { point: Math.exp(mean), lo: Math.exp(quantile(means, tail)), hi: Math.exp(quantile(means, 1 - tail)) };
}

export type Stop = "better" | "worse" | "noise" | "max-pairs";

/**
 * Sequential stop over pairs. Looking after every pair would inflate the error, so each look spends its share of it (Bonferroni over the
 * looks that are possible: max − min + 1). Returns null while it should go on.
 */
export function sequentialStop(ratios: readonly number[], plan: { min: number; max: number; confidence: number }): Stop | null {
  if (ratios.length < plan.min) return null;
  const looks = plan.max - plan.min + 1;
  const strict = 1 - (1 - plan.confidence) / looks;
  const i = ratioInterval(ratios, ratios.length >= 6 ? strict : strict > 0.95 ? 0.99 : plan.confidence);
  if (i.lo > 1) return "better";
  if (i.hi < 1) return "worse";
  if (ratios.length >= plan.max) return "max-pairs";
  return i.lo > 0.98 && i.hi < 1.02 ? "noise" : null;
}
