import { createRng, type Length } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { bodyOf } from "../../gpu-agent/src/bench/dialect.ts";
import { drawLength, expandWorkload, warmUpWorkload } from "../../gpu-agent/src/bench/workload.ts";
import { closed, drawFakePrompt } from "./bench-kit.ts";

it("the same seed gives the same requests, another seed shares no prompt with it", () => {
  const w = { ...closed(4, 20, 8), output: { distribution: "uniform", min: 4, max: 9 } as const };
  const [a, again, b] = [
    expandWorkload(w, "a", drawFakePrompt),
    expandWorkload(w, "a", drawFakePrompt),
    expandWorkload(w, "b", drawFakePrompt),
  ];
  expect(again).toEqual(a);
  const bodies = new Set([...a, ...b].map((r) => r.prompt.messages[0]?.content));
  expect(bodies.size).toBe(40);
  for (const r of a) {
    expect(r.promptIds.length).toBeGreaterThanOrEqual(20);
    expect(JSON.parse(bodyOf("openai", r))).toMatchObject({
      max_tokens: r.outputTokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
    });
  }
  expect(new Set(a.map((r) => r.outputTokens))).toEqual(new Set([4, 5, 6, 7, 8, 9]));
});

it("lengths keep to their bounds and their middle", () => {
  const sample = (length: Length): number[] => {
    const rng = createRng("lengths");
    return Array.from({ length: 4000 }, () => drawLength(length, rng)).toSorted((x, y) => x - y);
  };
  const normal = sample({ distribution: "lognormal", median: 128, sigma: 0.4, min: 48, max: 384 });
  expect([normal[0], normal.at(-1)]).toEqual([48, 384]);
  expect(normal[2000]).toBeGreaterThan(122);
  expect(normal[2000]).toBeLessThan(134);
  const uniform = sample({ distribution: "uniform", min: 6, max: 10 });
  expect(new Set(uniform)).toEqual(new Set([6, 7, 8, 9, 10]));
  expect(new Set(sample({ distribution: "fixed", tokens: 5 }))).toEqual(new Set([5]));
});

it("Poisson arrivals keep their rate, and their gaps are exponential", () => {
  const w = { ...closed(1, 3000, 1), arrival: { process: "poisson", ratePerS: 20 } as const };
  const at = expandWorkload(w, "seed", () => ({ messages: [], ids: [1] })).map((r) => r.atMs);
  const gaps = at.slice(1).map((t, i) => t - (at[i] ?? 0));
  const mean = gaps.reduce((a, b) => a + b, 0) / gaps.length;
  expect(mean).toBeGreaterThan(46);
  expect(mean).toBeLessThan(54);
  // Of an exponential distribution, 1/e lies beyond the mean.
  expect(gaps.filter((g) => g > mean).length / gaps.length).toBeCloseTo(Math.exp(-1), 1);
  expect(at[0]).toBe(0);
});

it("a warm-up has one request a client and few tokens", () => {
  expect(warmUpWorkload(closed(8, 48, 100))).toMatchObject({ requests: 8, output: { tokens: 8 }, arrival: { concurrency: 8 } });
  expect(warmUpWorkload(closed(8, 4, 100)).requests).toBe(4);
});
