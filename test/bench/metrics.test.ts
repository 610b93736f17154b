import { createRng, METRICS } from "@vibeserve/shared";
import fc from "fast-check";
import { expect, it } from "vitest";
import { pairOrder } from "../../gpu-agent/src/bench/arms.ts";
import { latencySummary, metricsOf, starved, throughputWindow } from "../../gpu-agent/src/bench/metrics.ts";
import type { VerifiedRequest } from "../../gpu-agent/src/bench/verify.ts";
import { drawProbes } from "../../gpu-agent/src/bench/probe.ts";
import { closed } from "./bench-kit.ts";

/**
 * A closed loop on a machine of `slots` equal places that each make a token a millisecond: what the bench would record, without processes. `pick`
 * chooses the next waiting request.
 */
function simulate(
  clients: number,
  lengths: readonly number[],
  slots: number,
  pick: (waiting: readonly number[]) => number = () => 0,
): VerifiedRequest[] {
  const done: VerifiedRequest[] = [];
  const waiting: { index: number; client: number; at: number; left: number }[] = [];
  const running: { index: number; client: number; at: number; left: number; tokenMs: number[] }[] = [];
  let next = 0;
  const send = (client: number, at: number): void => {
    const left = lengths[next];
    if (left !== undefined) waiting.push({ index: next++, client, at, left });
  };
  for (let c = 0; c < clients; c++) send(c, 0);
  for (let now = 1; done.length < lengths.length; now++) {
    while (running.length < slots && waiting.length > 0) {
      const [one] = waiting.splice(pick(waiting.map((w) => w.left)), 1);
      if (one) running.push({ ...one, tokenMs: [] });
    }
    for (const r of [...running]) {
      r.tokenMs.push(now);
      if (--r.left > 0) continue;
      running.splice(running.indexOf(r), 1);
      done.push({ index: r.index, client: r.client, scheduledMs: r.at, tokenMs: r.tokenMs, ids: r.tokenMs, endMs: now });
      send(r.client, now);
    }
  }
  return done;
}

it("throughput of a closed loop is the machine's rate while all clients are busy, without the tail in which some have nothing to do", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 8 }),
      fc.array(fc.integer({ min: 5, max: 60 }), { minLength: 40, maxLength: 80 }),
      (c, lengths) => {
        const requests = simulate(c, lengths, c);
        const w = { ...closed(c, lengths.length, 1), requests: lengths.length };
        expect(throughputWindow(w, requests).kind).toBe("steady");
        // Each of c slots makes 1,000 tokens a second.
        expect(metricsOf(w, requests).output_tokens_per_second).toBeCloseTo(1000 * c, 0);
      },
    ),
    { numRuns: 50 },
  );
});

it("an engine that serves one request at a time gets its own rate, too: the window favours neither", () => {
  const lengths = Array.from({ length: 32 }, (_, i) => 10 + (i % 7));
  const requests = simulate(8, lengths, 1);
  expect(metricsOf(closed(8, 32, 1), requests).output_tokens_per_second).toBeCloseTo(1000, 0);
});

it("too short a loop is measured over its whole makespan", () => {
  const requests = simulate(4, [10, 10, 10, 40], 4);
  expect(throughputWindow(closed(4, 4, 1), requests)).toEqual({ fromMs: 0, toMs: 40, kind: "makespan" });
  expect(metricsOf(closed(4, 4, 1), requests).output_tokens_per_second).toBeCloseTo(70 / 0.04, 6);
});

it("leaving costly requests lying until the window is over is found, and ordinary schedulers are not accused", () => {
  const rng = createRng("lengths");
  const lengths = Array.from({ length: 64 }, () => 5 + rng.int(60));
  const w = closed(8, 64, 1);
  expect(starved(w, simulate(8, lengths, 8))).toBeNull();
  expect(starved(w, simulate(8, lengths, 1))).toBeNull();
  expect(starved(w, simulate(8, lengths, 3))).toBeNull();
  const cheapestFirst = (waiting: readonly number[]): number => waiting.indexOf(Math.min(...waiting));
  expect(starved(w, simulate(8, lengths, 1, cheapestFirst))?.overtakenBy).toBeGreaterThan(16);
});

it("TTFT and E2E run from the scheduled instant, TPOT is per token however many come in one event", () => {
  const r: VerifiedRequest = { index: 0, client: 0, scheduledMs: 100, tokenMs: [150, 150, 170, 200], ids: [1, 2, 3, 4], endMs: 201 };
  expect(metricsOf(closed(1, 1, 4), [r])).toEqual({
    output_tokens_per_second: 40,
    ttft_p50: 50,
    tpot_p50: 50 / 3,
    e2e_p50: 100,
    request_tokens_per_second_p50: 40,
  });
  expect(Object.keys(metricsOf(closed(1, 1, 4), [r])).toSorted()).toEqual(Object.keys(METRICS).toSorted());
});

it("there is no 99th percentile from fewer than 459 samples", () => {
  const sample = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
  expect(latencySummary(sample(458)).p99).toBeNull();
  expect(latencySummary(sample(459)).p99).toBeCloseTo(453.42, 6);
});

it("pairs alternate ABBA, so each arm goes first as often as second", () => {
  const order = Array.from({ length: 4 }, (_, i) => pairOrder(i)).flat();
  expect(order.map((s) => (s === "challenger" ? "A" : "B")).join("")).toBe("ABBAABBA");
});

it("any served answer may be probed, none twice", () => {
  const verified = simulate(2, [3, 3, 3, 3], 2);
  const requests = verified.map(() => ({ prompt: { messages: [], ids: [1] }, atMs: 0, promptIds: [1], outputTokens: 3 }));
  const seen = new Set<string>();
  for (let i = 0; i < 200; i++) {
    const probes = drawProbes(
      [0, 1].map((run) => ({ run, requests, verified })),
      3,
      createRng(String(i)),
    );
    expect(new Set(probes.map((p) => `${p.run}/${p.request}`)).size).toBe(3);
    for (const p of probes) seen.add(`${p.run}/${p.request}`);
  }
  expect(seen.size).toBe(8);
});
