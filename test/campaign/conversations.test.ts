import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { CampaignEvent } from "@vibeserve/shared";
import { fold, pending, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import { MAX_RETURNS, type Experiment } from "../../coordinator/src/campaign/experiment.machine.ts";
import { floorFirst, notices, plateau, repeatedFailure, roofReached, signature } from "../../coordinator/src/campaign/rules.ts";
import { MAX_TURNS, saidTurns } from "../../coordinator/src/campaign/session.ts";
import { ModelWorld } from "./model-world.ts";
import { World } from "./world.ts";

/** A world whose draws come from `draws`, and are 0 after them. */
function worldOf(draws: readonly number[], experiments: number): ModelWorld {
  let at = 0;
  const world = new ModelWorld((n) => (draws[at++] ?? 0) % n, experiments);
  // A device or harness that fails three times pauses the campaign; somebody looks at it.
  for (let i = 0; i < 4_000 && !world.state.ended; i++) {
    if (world.state.pausedAt) world.append({ type: "campaign.resumed", reason: "looked at" });
    const [effect] = pending(world.state);
    if (!effect) throw new Error("nothing is pending and the campaign has not ended");
    world.perform(effect);
  }
  return world;
}

const refold = (events: readonly CampaignEvent[]): Campaign | null => events.reduce<Campaign | null>(fold, null);
const draws = fc.array(fc.nat(10_000), { minLength: 40, maxLength: 1_500 });

describe("both loops over random outcomes", () => {
  it("end, and keep their invariants", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(draws, fc.integer({ min: 1, max: 6 }), (drawn, experiments) => {
        const world = worldOf(drawn, experiments);
        const c = world.state;
        expect(c.ended).not.toBeNull();
        expect(new Set(world.performed).size).toBe(world.performed.length);
        expect(new Set(c.turns.map((t) => t.id)).size).toBe(c.turns.length);
        for (const x of c.experiments) {
          expect(x.settled).not.toBeNull();
          seen.add(x.settled?.strategy ?? x.settled?.outcome ?? "").add(`${x.returned.length} returns`);
          if (c.leaders.includes(x.id)) seen.add("leader");
          expect(x.returned.length).toBeLessThanOrEqual(MAX_RETURNS);
          expect(saidTurns(c.turns, x.id, "implementer", 0).length).toBeLessThanOrEqual(MAX_TURNS.implementer);
          if (x.settled?.strategy === "abandoned")
            expect(x.reviews.filter((r) => r.of === "abandonment" && r.review.verdict === "pass")).toHaveLength(1);
          if (c.leaders.includes(x.id)) {
            expect(x.settled?.ratio?.lo).toBeGreaterThan(1);
            expect(x.reviews.find((r) => r.of === "candidate" && r.draft === x.draft)?.review.verdict).toBe("pass");
          }
        }
        // Only leaders are parents, so what was slower is never built upon.
        for (const x of c.experiments) expect(c.leaders).toContain(x.hypothesis.parent);
      }),
      { numRuns: 300, seed: 7 },
    );
    // The draws reach every end that an experiment can have.
    const ends = ["proven", "disproven", "inconclusive", "blocked", "parked", "abandoned", "leader"];
    expect([...seen]).toEqual(expect.arrayContaining([...ends, "0 returns", "1 returns", "2 returns", "3 returns"]));
  });

  it("nothing is measured before its check and its review, and a settled experiment never changes", () => {
    fc.assert(
      fc.property(draws, (drawn) => {
        const world = worldOf(drawn, 3);
        let c: Campaign | null = null;
        const settled = new Map<string, Experiment>();
        for (const event of world.events) {
          c = fold(c, event);
          const { fact } = event;
          if (fact.type === "job.requested" && fact.job.spec.kind === "bench" && fact.job.spec.purpose === "screen") {
            const x = c.experiments.find((e) => e.id === fact.job.experiment);
            expect(x?.reviews.some((r) => r.draft === x.draft && r.review.verdict === "pass")).toBe(true);
          }
          for (const x of c.experiments) {
            const before = settled.get(x.id);
            if (before) expect(x).toEqual(before);
            if (x.settled) settled.set(x.id, x);
          }
        }
      }),
      { numRuns: 40 },
    );
  });

  it("after a kill at any point the same effects are pending", () => {
    fc.assert(
      fc.property(draws, fc.nat(), (drawn, at) => {
        const world = worldOf(drawn, 2);
        const events = world.events.slice(0, 1 + (at % world.events.length));
        const [a, b] = [refold(events), refold(structuredClone(events))];
        if (!a || !b) throw new Error("no events");
        expect(a).toEqual(b);
        expect(pending(a)).toEqual(pending(b));
      }),
      { numRuns: 100 },
    );
  });
});

describe("rules", () => {
  const base = new World([]).state;
  const experiment = (settled: Partial<NonNullable<Experiment["settled"]>>, id = "e1"): Experiment => ({
    ...base.seed,
    id,
    settled: { outcome: "inconclusive", reason: "", ratio: null, checkpoint: "discard", ...settled },
  });
  const ratio = (lo: number, hi: number) => ({ point: (lo + hi) / 2, lo, hi, pairs: 4 });
  const state = (...experiments: Experiment[]): Campaign => ({ ...base, experiments });

  it("a plateau is three results in a row inside the noise; one outside ends it, unmeasured ones between do not", () => {
    const flat = experiment({ ratio: ratio(0.98, 1.03) });
    const failed = experiment({ outcome: "implementation_failed", reason: "build: x" });
    expect(plateau(state(flat, flat))).toBe(false);
    expect(plateau(state(flat, failed, flat, flat))).toBe(true);
    expect(plateau(state(flat, flat, experiment({ ratio: ratio(1.1, 1.2) })))).toBe(false);
    expect(notices(state(flat, flat, flat), [])[0]).toMatch(/Plateau/);
  });

  it("three failures alike, whatever their numbers, ask for a smaller step", () => {
    const kl = (v: number) => experiment({ outcome: "implementation_failed", reason: `accuracy: mean KL is ${v} nat, must be <= 0.001` });
    const other = experiment({ outcome: "implementation_failed", reason: "build: build-failed (candidate): x" });
    expect(signature(kl(0.3))).toBe(signature(kl(12.5)));
    expect(repeatedFailure(state(kl(1), kl(2)))).toBeNull();
    expect(repeatedFailure(state(kl(1), other, kl(2)))).toBeNull();
    expect(repeatedFailure(state(other, kl(1), kl(2), kl(3)))).toMatch(/mean KL/);
    expect(notices(state(kl(1), kl(2), kl(3)), []).join()).toMatch(/smaller step/);
  });

  it("a standard technique that is expected at 1.5x goes before new code", () => {
    const option = (estimate: number) => ({ skill: "q4", estimate, why: "" });
    expect(floorFirst([option(1.2)])).toBeNull();
    expect(floorFirst([option(1.2), option(1.6)])).toMatchObject({ estimate: 1.6 });
    expect(notices(state(), [option(2)]).join()).toMatch(/Floor first: q4/);
  });

  it("what was slower is named, and that the next one starts from a leader", () => {
    expect(notices(state(experiment({ outcome: "disproven", ratio: ratio(0.7, 0.8) }, "e4")), []).join()).toMatch(/e4 was slower/);
  });

  it("at 90 % of the roofline the search is over; without a profile nobody says so", () => {
    const world = worldOf([], 1);
    const lead = (rate: number, bound: number): Campaign => {
      const x = experiment({ outcome: "proven" }, "e1");
      const done = (kind: "screen" | "profile", outcome: unknown) => [`sim_e1_${kind}`, { status: "over", outcome }];
      const measured = { status: "measured", challenger: { value: rate, metric: { unit: "tok/s" } } };
      const profiled = { status: "profiled", roofline: { tokPerS: bound } };
      const ledger = Object.fromEntries([done("screen", measured), done("profile", profiled)]) as Campaign["ledger"];
      return { ...world.state, experiments: [x], leaders: ["seed", "e1"], ledger };
    };
    expect(roofReached(lead(89, 100))).toBeNull();
    expect(roofReached(lead(91, 100))).toBe("the leader runs at 91 % of the device's roofline");
    expect(roofReached({ ...lead(91, 100), ledger: {} })).toBeNull();
    // A stack that keeps its weights in fewer bytes than the file passes the bound: there it says nothing.
    expect(roofReached(lead(180, 100))).toBeNull();
  });
});
