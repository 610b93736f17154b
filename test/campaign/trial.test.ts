import type { Bindings, Trial } from "@vibeserve/shared";
import { describe, expect, it } from "vitest";
import { trialEnding, verdictOf } from "../../coordinator/src/campaign/trial.ts";
import { seedBindings } from "../../coordinator/src/stack/compose.ts";
import { World, type SimSkill } from "./world.ts";

const SKILLS: SimSkill[] = [
  { id: "q4", seam: "linear", stated: 4, truth: 5 },
  { id: "q8", seam: "linear", stated: 3, truth: 3 },
  { id: "slow", seam: "head", stated: 2, truth: 0.7 },
];
const ref = (campaign: string) => ({ campaign, experimentId: "e4" });
const bound = (change: Bindings): Bindings => ({ ...seedBindings(), ...change });
const ORIGINS = {
  new: bound({ linear: "bindings/linear/q4.cpp" }),
  old: bound({ linear: "bindings/linear/q8.cpp" }),
  bad: bound({ head: "bindings/head/slow.cpp" }),
};
const requalify = (...campaigns: string[]): Trial => ({ purpose: "requalify", because: "driver", champions: campaigns.map(ref) });

function tried(trial: Trial, skills = SKILLS): World {
  const w = new World(skills, { trial, origins: ORIGINS });
  w.run();
  return w;
}

describe("a re-qualification", () => {
  it("crowns a champion that still holds by I4, and tries no other", () => {
    const w = tried(requalify("new", "old"));
    expect(w.state.experiments.map((x) => [x.portOf, x.settled?.outcome])).toEqual([[ref("new"), "proven"]]);
    expect(Object.keys(w.state.ledger)).toEqual(expect.arrayContaining(["sim_e1_crown-check", "sim_e1_crown", "sim_e1_repeat"]));
    expect(verdictOf(w.state)).toMatchObject({ champion: ref("new"), verdict: "still-good", to: null });
    expect(w.state.ended).toMatchObject({
      outcome: "proven",
      reason: expect.stringMatching(/^new\.e4 is still-good \(tested for driver\)/) as string,
    });
  });

  it("goes back to the last good champion where the newest does not hold, and says why", () => {
    const w = tried(requalify("bad", "old"));
    expect(verdictOf(w.state)).toMatchObject({
      verdict: "rolled-back",
      to: ref("old"),
      reason: expect.stringMatching(/^slower than its parent/) as string,
    });
    expect(w.state.champions.map((c) => c.bindings)).toEqual([ORIGINS.old]);
    expect(w.state.ended?.reason).toMatch(/^bad\.e4 is rolled-back to old\.e4 \(tested for driver\): slower/);
  });

  it.each([
    ["its build", "build"],
    ["its check", "check"],
  ] as const)("goes back to the seed where nothing holds, %s failing among the reasons", (_, breaks) => {
    const w = tried(requalify("new", "bad"), [{ ...SKILLS[0], breaks } as SimSkill, ...SKILLS.slice(1)]);
    expect(verdictOf(w.state)).toMatchObject({ verdict: "rolled-back", to: "seed" });
    expect(verdictOf(w.state)?.reason).toContain(breaks === "build" ? "build-failed" : "mean KL");
    expect(w.state.ended).toMatchObject({ outcome: "not-proven", reason: expect.stringContaining("to the seed") as string });
  });

  it("decides nothing where the champion was blocked for no fault of its own, or the campaign was cancelled (I8)", () => {
    const w = new World(SKILLS, { trial: requalify("new"), origins: ORIGINS });
    while (!w.state.experiments[0]) w.run(1);
    w.append({
      type: "experiment.settled",
      experimentId: "e1",
      outcome: "blocked",
      ratio: null,
      checkpoint: "discard",
      reason: "the device fell off",
    });
    w.run();
    expect(verdictOf(w.state)).toMatchObject({ verdict: "undecided", to: null, reason: "the device fell off" });
    const cancelled = new World(SKILLS, { trial: requalify("new"), origins: ORIGINS });
    cancelled.append({ type: "campaign.ended", outcome: "cancelled", reason: "asked for" });
    expect(verdictOf(cancelled.state)?.verdict).toBe("undecided");
  });

  it("has no verdict while it goes on, and no other campaign has one", () => {
    const w = new World(SKILLS, { trial: requalify("new"), origins: ORIGINS });
    while (!w.state.champions[0]) {
      expect(verdictOf(w.state)).toBeNull();
      w.run(1);
    }
    const plain = new World(SKILLS);
    plain.run();
    expect([verdictOf(plain.state), trialEnding(plain.state)]).toEqual([null, null]);
  });
});

describe("a matrix", () => {
  it("measures every champion against the seed alone, and crowns none", () => {
    const w = tried({ purpose: "matrix", because: null, champions: ["old", "new", "bad"].map(ref) });
    expect(w.state.experiments.map((x) => [x.portOf?.campaign, x.settled?.outcome, x.settled?.ratio?.point.toFixed(1)])).toEqual([
      ["old", "proven", "3.0"],
      ["new", "proven", "5.0"],
      ["bad", "disproven", "0.7"],
    ]);
    expect(w.state.champions).toEqual([]);
    expect(Object.keys(w.state.ledger).filter((id) => /crown|repeat|lead/.test(id))).toEqual([]);
    expect(w.state.ended?.reason).toBe("measured 3 champions against the seed; nothing is crowned");
  });
});
