import fc from "fast-check";
import { expect, test } from "vitest";
import { pausedUntil, plan, type PodSeen } from "../../coordinator/src/pods/worker-pods.machine.ts";
import type { PodClass } from "../../coordinator/src/pods/pod-class.ts";

const podClass = (max: number): PodClass => ({
  ...{ name: "h100", pool: "h100", labels: {}, max, lingerSeconds: 20, startSeconds: 900 },
  template: { metadata: { labels: {} }, spec: { containers: [{ name: "agent", env: [] }] } },
});

const phases = ["gated", "pending", "running", "succeeded", "failed", "leaving"] as const;
const pod = fc.record({
  ...{ phase: fc.constantFrom(...phases), registered: fc.boolean(), ageMs: fc.integer({ min: 0, max: 2_000_000 }) },
});
const demand = fc.record({
  waiting: fc.record({ device: fc.nat(20), builder: fc.nat(20) }),
  ...{ free: fc.nat(5), unbound: fc.nat(3) },
});
const NOW = 10_000_000;

test("P1 to P3 hold whatever pods there are and whatever waits", () => {
  fc.assert(
    fc.property(fc.array(pod, { maxLength: 12 }), demand, fc.integer({ min: 1, max: 8 }), (drawn, wanted, max) => {
      const pods: PodSeen[] = drawn.map(({ phase, registered, ageMs }, i) => ({
        ...{ name: `p${i}`, podClass: "h100", createdAt: NOW - ageMs, phase, says: "" },
        registered: registered && phase === "running",
      }));
      const { create, remove } = plan(podClass(max), pods, wanted, null, NOW);
      const holding = pods.filter((p) => p.phase !== "succeeded" && p.phase !== "failed").length;
      expect(create === 0 || holding + create <= max).toBe(true);
      const starting = pods.filter((p) => !p.registered && ["gated", "pending", "running"].includes(p.phase)).length;
      expect(create).toBeLessThanOrEqual(Math.max(1, wanted.waiting.device - wanted.free));
      if (wanted.waiting.device - wanted.free > starting && holding < max) expect(create).toBeGreaterThan(0);
      // The plan of the next look, when what was made is pending and nothing else has changed, makes none for the same jobs.
      const made = Array.from({ length: create }, (_, i): PodSeen => ({
        name: `n${i}`,
        podClass: "h100",
        createdAt: NOW,
        phase: "pending",
        registered: false,
        says: "",
      }));
      const left = pods.filter((p) => !remove.some((r) => r.name === p.name));
      if (remove.length === 0) expect(plan(podClass(max), [...left, ...made], wanted, null, NOW).create).toBe(0);
      for (const { name } of remove) {
        const gone = pods.find((p) => p.name === name);
        expect(gone?.registered).toBe(false);
      }
      expect(new Set(remove.map((r) => r.name)).size).toBe(remove.length);
    }),
    { numRuns: 5_000 },
  );
});

test("pods that come to nothing are made ever more rarely, at least every ten minutes", () => {
  const waits = [1, 2, 3, 10, 50].map((count) => pausedUntil({ count, at: NOW }) - NOW);
  expect(waits).toEqual([10_000, 20_000, 40_000, 600_000, 600_000]);
  const wanted = { waiting: { device: 3, builder: 0 }, free: 0, unbound: 0 };
  expect(plan(podClass(4), [], wanted, { count: 2, at: NOW }, NOW + 19_999).create).toBe(0);
  expect(plan(podClass(4), [], wanted, { count: 2, at: NOW }, NOW + 20_000).create).toBe(3);
});

test("builds alone take no accelerator where a pod is there already, and one where none is", () => {
  const wanted = { waiting: { device: 0, builder: 9 }, free: 0, unbound: 0 };
  expect(plan(podClass(4), [], wanted, null, NOW).create).toBe(1);
  const there: PodSeen = { name: "p", podClass: "h100", createdAt: NOW, phase: "running", registered: true, says: "" };
  expect(plan(podClass(4), [there], wanted, null, NOW).create).toBe(0);
});
