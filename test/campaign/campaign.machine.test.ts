import type { Workload } from "@vibeserve/shared";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fold, leader, pending, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import { fellApart, observations } from "../../coordinator/src/campaign/planning.ts";
import { screeningWorkload } from "../../coordinator/src/campaign/workloads.ts";
import { same, target, World, type SimSkill } from "./world.ts";

const LADDER: SimSkill[] = [
  { id: "simd", seam: "linear", stated: 4, truth: 4 },
  { id: "q4", seam: "linear", stated: 9, truth: 10 },
  { id: "amx", seam: "linear", stated: 20, truth: 30, isa: ["amx_bf16"] },
  { id: "pool", seam: "threading", stated: 2, truth: 1.9 },
  { id: "packed", seam: "attention", stated: 1.2, truth: 1.3 },
  { id: "fused", seam: "layer", stated: 1.1, truth: 1.08 },
  { id: "continuous", seam: "scheduler", stated: 3, truth: 2.5 },
  { id: "chunked", seam: "scheduler", stated: 3.1, truth: 2.3, requires: ["continuous"] },
  { id: "argmax", seam: "head", stated: 1.2, truth: 0.95 },
];

function replay(world: World): Campaign {
  let c: Campaign | null = null;
  for (const e of world.events) c = fold(c, e);
  if (!c) throw new Error("no events");
  return c;
}

describe("a campaign", () => {
  it("ends proven with the best stack that its skills can make on this ISA", () => {
    const world = new World(LADDER);
    const c = world.run();
    expect(c.ended?.outcome).toBe("proven");
    const bound = Object.values(c.champions.at(-1)?.bindings ?? {});
    expect(bound).toEqual(
      expect.arrayContaining([
        "bindings/linear/q4.cpp",
        "bindings/threading/pool.cpp",
        "bindings/attention/packed.cpp",
        "bindings/layer/fused.cpp",
        "bindings/scheduler/continuous.cpp",
      ]),
    );
    expect(bound).not.toContain("bindings/head/argmax.cpp");
    expect(c.champions.at(-1)?.repeat.lo).toBeGreaterThan(20);
  });

  it("measures a skill that is slower here, and drops it with the measured reason", () => {
    const c = new World(LADDER).run();
    const argmax = c.experiments.find((x) => x.hypothesis.skills[0] === "argmax");
    expect(argmax?.settled).toMatchObject({ outcome: "disproven", checkpoint: "discard" });
    expect(argmax?.settled?.reason).toContain("slower than its parent: 0.950×");
  });

  it("files every idea that the device could use before the first is tried, and says where each stands at the end", () => {
    const world = new World(LADDER);
    const c = world.run();
    const order = world.events.map((e) => e.fact.type);
    expect(order.indexOf("backlog.filed")).toBeLessThan(order.indexOf("experiment.proposed"));
    expect(order.filter((type) => type === "backlog.filed")).toHaveLength(1);
    const stands: Record<string, string> = Object.fromEntries(c.backlog.map((i) => [i.skills[0] ?? "", i.strategy]));
    expect(stands).toMatchObject({ q4: "done", pool: "done", argmax: "parked", simd: "available" });
    expect(stands).not.toHaveProperty("amx");
    const argmax = c.backlog.find((i) => i.skills[0] === "argmax");
    expect(argmax?.reason).toContain("slower than its parent");
    expect(argmax?.experiments).toEqual([c.experiments.find((x) => x.hypothesis.skills[0] === "argmax")?.id]);
  });

  it("never tries a skill whose ISA the device lacks", () => {
    expect(new World(LADDER).run().experiments.flatMap((x) => x.hypothesis.skills)).not.toContain("amx");
  });

  it("orders by expected gain, and by what measuring has taught it", () => {
    const order = new World(LADDER).run().experiments.map((x) => x.hypothesis.skills[0]);
    expect(order[0]).toBe("q4");
    expect(order).not.toContain("simd");
    const other = new World(LADDER.map((s) => (s.id === "q4" ? { ...s, truth: 0.9 } : s)))
      .run()
      .experiments.map((x) => x.hypothesis.skills[0]);
    expect(other[0]).toBe("q4");
    expect(other).toContain("simd");
  });

  it("tries a variant of a seam that states no less than the bound one, even if the first gained more than it had stated", () => {
    const variants: SimSkill[] = [
      ...LADDER.filter((s) => s.id !== "amx" && s.id !== "simd").map((s) => (s.id === "chunked" ? { ...s, truth: 1.1 } : s)),
      { id: "narrow", seam: "linear", stated: 8.9, truth: 16 },
    ];
    for (const q4 of [12, 24]) {
      const c = new World(variants.map((s) => (s.id === "q4" ? { ...s, truth: q4 } : s))).run();
      const bound = Object.values(c.champions.at(-1)?.bindings ?? {});
      expect(bound).toContain(q4 > 16 ? "bindings/linear/q4.cpp" : "bindings/linear/narrow.cpp");
      const tried = c.experiments.filter((x) => x.hypothesis.skills[0] === "narrow");
      expect(tried[0]?.settled?.outcome).toBe(q4 > 16 ? "disproven" : "proven");
    }
  });

  it.each(["build", "check"] as const)("goes on after a skill that fails its %s, first with another variant of the same seam", (breaks) => {
    const c = new World(LADDER.map((s) => (s.id === "q4" ? { ...s, breaks } : s))).run();
    expect(c.experiments[0]?.settled?.outcome).toBe("implementation_failed");
    expect(c.experiments[1]?.hypothesis.skills).toEqual(["simd"]);
    expect(c.experiments.filter((x) => x.hypothesis.skills[0] === "q4").length).toBe(2);
    expect(c.ended?.outcome).toBe("proven");
  });

  it("ends not-proven when nothing beats the seed", () => {
    const c = new World([{ id: "slow", seam: "head", stated: 2, truth: 0.8 }]).run();
    expect(c.ended?.outcome).toBe("not-proven");
    expect(c.champions).toEqual([]);
  });

  it("stops searching in time to crown", () => {
    // The seed makes 10 tok/s: 12 s for a run of this slice.
    const slice: Workload = { ...target.slice, output: { distribution: "fixed", tokens: 15 } };
    const c = new World(LADDER, { target: { ...target, slice, budget: { ...target.budget, wallS: 240 } } }).run();
    expect(c.searchEnded).toMatch(/s of search time are left/);
    expect(c.ended?.outcome).toBe("proven");
  });

  it("begins with all that earlier campaigns proved at once, and tries only what they left open", () => {
    const before = new World(LADDER);
    const findings = observations(before.run(), before.catalog);
    const skills = (c: Campaign) => c.experiments.map((x) => x.hypothesis.skills);
    expect(skills(before.state).every((ids) => ids.length === 1)).toBe(true);
    const c = new World(LADDER, { findings }).run();
    const [together, ...rest] = skills(c);
    expect(new Set(together)).toEqual(new Set(["q4", "pool", "packed", "fused", "continuous"]));
    expect(c.experiments[0]?.settled?.outcome).toBe("proven");
    expect(rest.flat()).not.toContain("argmax");
    expect(c.champions.at(-1)?.bindings).toEqual(before.state.champions.at(-1)?.bindings);
    expect(observations(c, before.catalog).map((o) => o.skill)).not.toContain("q4");
  });

  it("puts together only what was proved: no lucky point, and no leader that failed its crowning", () => {
    const world = new World(LADDER);
    const honest = world.answer.bind(world);
    world.answer = (job) => {
      const outcome = honest(job);
      const crowns = job.spec.kind === "check" && job.spec.level === "crown" && outcome.status === "checked";
      return crowns && job.experiment === world.state.leaders.at(-1) ? { ...outcome, report: { ...outcome.report, ok: false } } : outcome;
    };
    const c = world.run();
    const found = observations(c, world.catalog);
    const failed = c.experiments.find((x) => x.id === c.leaders.at(-1))?.hypothesis.skills[0];
    expect(found.find((o) => o.skill === failed)?.proved).toBe(false);
    const lucky = found.map((o) => (o.skill === "pool" ? { ...o, proved: false } : o));
    const [first] = new World(LADDER, { findings: lucky }).run().experiments;
    expect(first?.hypothesis.skills).not.toContain(failed);
    expect(first?.hypothesis.skills).not.toContain("pool");
    expect(fellApart(new World(LADDER, { findings: observations(new World(LADDER).run(), world.catalog) }).run())).toBe(false);
  });

  it("tries each skill by itself where those of earlier campaigns do not build together", () => {
    const before = new World(LADDER);
    const findings = observations(before.run(), before.catalog);
    const world = new World(LADDER, { findings });
    const honest = world.answer.bind(world);
    world.answer = (job) =>
      job.experiment === "e1" && job.spec.kind === "build"
        ? { status: "failed", failure: { attribution: "candidate", code: "build-failed", message: "clash", logTail: "" } }
        : honest(job);
    const c = world.run();
    expect(c.experiments[0]?.settled?.outcome).toBe("implementation_failed");
    expect(c.experiments[1]?.hypothesis.skills).toEqual(["q4"]);
    expect(c.ended?.outcome).toBe("proven");
    expect(fellApart(c)).toBe(true);
  });

  it("falls back to the leader before it when the last leader fails its crown check", () => {
    const world = new World(LADDER);
    const honest = world.answer.bind(world);
    let refused = "";
    world.answer = (job) => {
      const outcome = honest(job);
      if (
        job.spec.kind !== "check" ||
        job.spec.level !== "crown" ||
        outcome.status !== "checked" ||
        (refused !== "" && refused !== job.experiment)
      )
        return outcome;
      refused = job.experiment;
      return { ...outcome, report: { ...outcome.report, ok: false } };
    };
    const c = world.run();
    expect(c.ended?.outcome).toBe("proven");
    expect(c.champions.at(-1)?.experimentId).toBe(c.leaders.at(-2));
    expect(leader(c)).toBe(refused);
  });

  it("does not hold a failure of device, harness or network against an idea", () => {
    const world = new World(LADDER);
    const honest = world.answer.bind(world);
    world.answer = (job) =>
      job.attempt < 3 && job.spec.kind === "bench"
        ? { status: "failed", failure: { attribution: "device", code: "device-noisy", message: "steal", logTail: "" } }
        : honest(job);
    const c = world.run();
    expect(c.ended?.outcome).toBe("proven");
    expect(c.experiments.every((x) => x.settled?.outcome !== "implementation_failed")).toBe(true);
  });
});

describe("invariants under lost, repeated and stale events", () => {
  it("replay gives the same campaign, and a restart at any event ends with the same champion", () => {
    const whole = new World(LADDER);
    const end = whole.run();
    expect(same(replay(whole), end)).toBe(true);
    for (let cut = 1; cut < whole.events.length; cut += 7) {
      const again = new World(LADDER);
      again.events.length = 0;
      again.campaign = null;
      for (const e of whole.events.slice(0, cut)) {
        again.events.push(e);
        again.campaign = fold(again.campaign, e);
        again.now = e.at;
      }
      const c = again.run();
      expect(c.champions.map((x) => x.experimentId)).toEqual(end.champions.map((x) => x.experimentId));
    }
  });

  it("E1 I3: repeated and stale results change nothing", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 30 }), (repeats) => {
        const world = new World(LADDER);
        const honest = world.run(60);
        const noisy = new World(LADDER);
        noisy.run(60);
        for (const [i] of repeats) {
          const e = noisy.events[i % noisy.events.length];
          if (e?.fact.type === "job.settled" || e?.fact.type === "experiment.settled" || e?.fact.type === "champion.crowned")
            noisy.append(e.fact);
        }
        expect(noisy.state.leaders).toEqual(honest.leaders);
        expect(noisy.state.ledger).toEqual(honest.ledger);
        expect(noisy.state.experiments).toEqual(honest.experiments);
      }),
      { numRuns: 30 },
    );
  });

  it("a result that was not accepted is evidence only", () => {
    const world = new World(LADDER);
    world.run(3);
    const dispatch = pending(world.state)[0];
    if (dispatch?.type !== "dispatch") throw new Error("expected a dispatch");
    const job = { ...dispatch.job, issuedAt: 1, pool: "p" };
    world.append({ type: "job.requested", job });
    const before = world.state.ledger;
    world.append({ type: "job.settled", result: world.result(job, world.answer(job)), accepted: false, why: "old token" });
    expect(world.state.ledger).toEqual(before);
  });

  it("a paused campaign wants nothing, and pauses do not count as elapsed", () => {
    const world = new World(LADDER);
    world.run(10);
    world.append({ type: "campaign.paused", reason: "asked" });
    expect(pending(world.state)).toEqual([]);
    world.now += 1_000_000;
    world.append({ type: "campaign.resumed", reason: "asked" });
    expect(world.run().ended?.outcome).toBe("proven");
  });
});

describe("the workload of a screening", () => {
  const at = (rate: number | null) => screeningWorkload(target.workload, target.slice, rate);

  it("is the slice where the parent is unmeasured or too slow for a short version of the target's own", () => {
    expect(at(null)).toBe(target.slice);
    expect(at(100)).toBe(target.slice);
  });

  it("is the target's own in prompt and output alike, shortened so that two requests a client fit, then with more requests, at most all", () => {
    // 16 requests of 224 positions at 600 positions/s would take 6 s: half as long.
    expect(at(600)).toMatchObject({ prompt: { tokens: 64 }, output: { tokens: 48 }, requests: 16 });
    expect(at(2000)).toEqual({ ...target.workload, requests: 26 });
    expect(at(20_000)).toEqual(target.workload);
  });

  it("asks for no prompt and no answer shorter than the slice's, and for no more requests than the target's", () => {
    const full: Workload = {
      ...target.workload,
      prompt: { distribution: "lognormal", median: 128, sigma: 0.4, min: 48, max: 384 },
      output: { distribution: "uniform", min: 16, max: 96 },
      requests: 12,
    };
    const slice: Workload = {
      ...target.slice,
      prompt: { distribution: "uniform", min: 16, max: 24 },
      output: { distribution: "uniform", min: 6, max: 10 },
    };
    expect(screeningWorkload(full, slice, 210)).toMatchObject({
      prompt: { min: 16, median: 35 },
      output: { min: 6, max: 26 },
      requests: 12,
    });
    expect(screeningWorkload(full, slice, 2000)).toEqual(full);
  });
});
