import { createRng, median, quantile, ratioInterval, sequentialInterval, sequentialStop, type Rng } from "@vibeserve/shared";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, it } from "vitest";
import { studentT } from "../../shared/src/student-t.ts";

const ratio = fc.double({ min: 0.01, max: 100, noNaN: true });
const ratios = fc.array(ratio, { minLength: 2, maxLength: 20 });

it("Student's t agrees with the printed tables", () => {
  for (const [confidence, df, t] of [
    [0.95, 1, 12.7062],
    [0.95, 4, 2.7764],
    [0.95, 10, 2.2281],
    [0.99, 3, 5.8409],
    [0.99, 29, 2.7564],
    [0.999, 5, 6.8688],
    [0.95, 1000, 1.9623],
  ] as const)
    expect(studentT(confidence, df)).toBeCloseTo(t, 3);
});

it("a quantile lies between the extremes and rises with q", () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ noNaN: true, min: -1e6, max: 1e6 }), { minLength: 1 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (xs, q) => {
        const v = quantile(xs, q);
        expect(v).toBeGreaterThanOrEqual(Math.min(...xs));
        expect(v).toBeLessThanOrEqual(Math.max(...xs));
        expect(quantile(xs, q / 2)).toBeLessThanOrEqual(v);
      },
    ),
  );
  expect(median([3, 1, 2, 10])).toBe(2.5);
});

it("an interval holds its point, widens with confidence, and turns over with the arms", () => {
  fc.assert(
    fc.property(ratios, (rs) => {
      const [narrow, wide] = [ratioInterval(rs, 0.9), ratioInterval(rs, 0.99)];
      expect(narrow.lo).toBeLessThanOrEqual(narrow.point * (1 + 1e-12));
      expect(narrow.hi).toBeGreaterThanOrEqual(narrow.point * (1 - 1e-12));
      expect(wide.lo).toBeLessThanOrEqual(narrow.lo);
      expect(wide.hi).toBeGreaterThanOrEqual(narrow.hi);
      expect(ratioInterval(rs, 0.9)).toEqual(narrow);
      const swapped = ratioInterval(
        rs.map((r) => 1 / r),
        0.9,
      );
      // The bootstrap draws anew for the swapped ratios, so the ends agree about, not exactly.
      expect(Math.log(swapped.point)).toBeCloseTo(-Math.log(narrow.point), 9);
      expect(Math.abs(Math.log(swapped.lo) + Math.log(narrow.hi))).toBeLessThan(0.15 * Math.log(wide.hi / wide.lo) + 1e-9);
    }),
    { numRuns: 60 },
  );
});

it("one pair gives no interval, and what is no ratio is refused", () => {
  expect(ratioInterval([1.5], 0.95)).toEqual({ point: 1.5, lo: 0, hi: Infinity });
  for (const bad of [[], [0, 1], [NaN, 1], [Infinity]]) expect(() => ratioInterval(bad, 0.95)).toThrow(RangeError);
});

it("the sequential stop says nothing before min, always ends at max, and never contradicts its own interval", () => {
  fc.assert(
    fc.property(ratios, fc.integer({ min: 1, max: 6 }), fc.integer({ min: 0, max: 10 }), (rs, min, more) => {
      const plan = { min, max: min + more, confidence: 0.95 };
      const stop = sequentialStop(rs, plan);
      if (rs.length < min) expect(stop).toBeNull();
      if (rs.length >= plan.max) expect(stop).not.toBeNull();
      if (rs.length < min || rs.length === 0) return;
      const i = sequentialInterval(rs, plan);
      expect(i.lo).toBeLessThanOrEqual(ratioInterval(rs, 0.95).lo + 1e-12);
      if (stop === "better") expect(i.lo).toBeGreaterThan(1);
      if (stop === "worse") expect(i.hi).toBeLessThan(1);
      if (stop === "noise" || stop === "max-pairs") expect(i.lo <= 1 && i.hi >= 1).toBe(true);
    }),
    { numRuns: 100 },
  );
});

/** Noise as machines have it: mostly normal, now and then a run that was slow for no visible reason. */
const noisy = (rng: Rng, sd: number, outliers: number): number =>
  sd * rng.normal() + (rng.next() < outliers ? (rng.next() < 0.5 ? -1 : 1) * 8 * sd : 0);

function share(trials: number, of: (rng: Rng) => boolean): number {
  let hits = 0;
  for (let t = 0; t < trials; t++) if (of(createRng(`trial ${t}`))) hits++;
  return hits / trials;
}

it.each([3, 4, 6, 10])("the interval of %i pairs at 0.95 holds the true ratio about 95 times of 100", (n) => {
  const holds = (outliers: number) => (rng: Rng) => {
    const i = ratioInterval(
      Array.from({ length: n }, () => 1.3 * Math.exp(noisy(rng, 0.03, outliers))),
      0.95,
    );
    return i.lo <= 1.3 && 1.3 <= i.hi;
  };
  const trials = n >= 6 ? 300 : 1000;
  // Standard error of a share of 0.95 over 300 trials: 1.3 points.
  const plain = share(trials, holds(0));
  expect(plain).toBeGreaterThan(0.91);
  expect(plain).toBeLessThan(0.995);
  expect(share(trials, holds(0.1))).toBeGreaterThan(0.9);
});

/** Runs a whole comparison of an arm whose true ratio is `truth`. */
function sequential(rng: Rng, truth: number, sd: number): { stop: string; pairs: number; covers: boolean } {
  const plan = { min: 4, max: 12, confidence: 0.95 };
  const rs: number[] = [];
  for (;;) {
    rs.push(truth * Math.exp(noisy(rng, sd, 0.03)));
    const stop = sequentialStop(rs, plan);
    if (stop === null) continue;
    const i = sequentialInterval(rs, plan);
    return { stop, pairs: rs.length, covers: i.lo <= truth && truth <= i.hi };
  }
}

it("looking after every pair calls an equal arm better or worse in fewer than 5 of 100 comparisons, and its interval keeps its promise", () => {
  const results = Array.from({ length: 150 }, (_, t) => sequential(createRng(`equal ${t}`), 1, 0.04));
  expect(results.filter((r) => r.stop === "better" || r.stop === "worse").length / 150).toBeLessThan(0.07);
  expect(results.filter((r) => r.covers).length / 150).toBeGreaterThan(0.93);
});

it("a gain of 30 % under 3 % noise is found within a few pairs", () => {
  const results = Array.from({ length: 60 }, (_, t) => sequential(createRng(`gain ${t}`), 1.3, 0.03));
  expect(results.filter((r) => r.stop === "better").length / 60).toBeGreaterThan(0.95);
  expect(median(results.map((r) => r.pairs))).toBeLessThanOrEqual(5);
});

/** How far the ratios of each recorded comparison lay from their mean, as logarithms, scaled to the spread of single pairs. */
function recordedNoise(): number[] {
  const log = join(import.meta.dirname, "../fixtures/transcripts/cpu-chat/events.jsonl");
  const comparisons = readFileSync(log, "utf8").matchAll(/"ratios":(\[[^\]]+\])/g);
  return [...comparisons].flatMap(([, list = ""]) => {
    const logs = (JSON.parse(list) as number[]).map(Math.log);
    const mean = logs.reduce((a, b) => a + b, 0) / logs.length;
    return logs.map((x) => (x - mean) * Math.sqrt(logs.length / (logs.length - 1)));
  });
}

it("under the noise of recorded pairs an equal stack is called faster no more often than its confidence says, two pairs or eight, and crowned hardly ever", () => {
  const noise = recordedNoise();
  expect(noise.length).toBeGreaterThan(30);
  // A screening, a crowning's first comparison and its repeat, as campaigns ask for them.
  const steps = [
    { min: 2, max: 4, confidence: 0.9 },
    { min: 2, max: 4, confidence: 0.95 },
    { min: 4, max: 8, confidence: 0.95 },
  ];
  const trials = 2000;
  const faster = steps.map((plan, step) =>
    share(trials, (rng) => {
      const own = createRng(`${step} ${rng.next()}`);
      const rs: number[] = [];
      for (;;) {
        rs.push(Math.exp(noise[own.int(noise.length)]! * (own.next() < 0.5 ? -1 : 1)));
        const stop = sequentialStop(rs, plan);
        if (stop !== null) return stop === "better";
      }
    }),
  );
  // Half of what is outside of the interval lies above it; three standard errors of a share of 0.05 are 1.5 points.
  faster.forEach((found, i) => expect(found, `step ${i}`).toBeLessThan((1 - steps[i]!.confidence) / 2 + 0.015));
  expect(faster.reduce((a, b) => a * b)).toBeLessThan(1e-4);
});
