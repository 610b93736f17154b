import { describe, expect, it } from "vitest";
import { EXPIRY_MS, findingsOf, toldBy, toolsDigestOf, type Finding, type Told } from "../../coordinator/src/findings/finding.ts";
import { weigh } from "../../coordinator/src/findings/weigh.ts";
import { agent, World, type SimSkill } from "../campaign/world.ts";

const told = (w: World): Told => ({ state: w.state, stackDigest: w.catalog.digest });
const ended = (skills: SimSkill[]): World => {
  const w = new World(skills);
  w.run();
  return w;
};
const one = (truth: number): Finding => {
  const [finding] = findingsOf(told(ended([{ id: "q4", seam: "linear", stated: 2, truth }])));
  if (!finding) throw new Error("no finding");
  return finding;
};
const of = (truth: number, change: Partial<Finding>): Finding => ({ ...one(truth), ...change });

describe("findings", () => {
  it("come from the log of a campaign that has ended, each with its scope, interval and the jobs behind it", () => {
    const w = ended([
      { id: "q4", seam: "linear", stated: 4, truth: 5 },
      { id: "slow", seam: "head", stated: 1.5, truth: 0.8 },
      { id: "broken", seam: "layer", stated: 3, truth: 2, breaks: "build" },
    ]);
    const findings = findingsOf(told(w));
    expect(findings.map((f) => [f.idea, f.outcome, f.kind, f.provenance])).toEqual([
      ["q4 over seed/linear.cpp", "proven", "skill", "shipped"],
      ["slow over seed/head.cpp", "disproven", "skill", "shipped"],
    ]);
    const [q4] = findings;
    expect(q4).toMatchObject({
      id: "sim.e1",
      simulated: true,
      scope: { isa: "avx2", seed: "stacks/sim", metric: "output_tokens_per_second" },
    });
    expect(q4?.effect?.point).toBeCloseTo(5);
    expect(q4?.effect?.pairs).toBe(4);
    // Its build, check and screening, and what crowned it.
    expect(q4?.evidence.jobs).toContain("sim_e1_screen");
    expect(q4?.expiresAt).toBe((q4?.at ?? 0) + EXPIRY_MS);
    expect(toldBy(w.events)).toEqual(told(w));
  });

  it("are none while the campaign goes on, since a leader may still be refused", () => {
    const w = new World([{ id: "q4", seam: "linear", stated: 4, truth: 5 }]);
    while (!w.state.experiments[0]?.settled) w.run(1);
    expect(findingsOf(told(w))).toEqual([]);
  });
});

describe("the weight of a finding", () => {
  const f = one(5);

  it("is 1 until it expires, then halves each 90 days", () => {
    const at = (now: number) => weigh([f], { now })[0];
    expect(at(f.at)).toMatchObject({ weight: 1, because: [] });
    expect(at(f.expiresAt)?.weight).toBe(1);
    expect(at(f.expiresAt + EXPIRY_MS)).toMatchObject({ weight: 0.5, because: ["expired"] });
    expect(at(f.expiresAt + 2 * EXPIRY_MS)?.weight).toBe(0.25);
  });

  it("halves where the stack or its agent's tools are others now, and says so", () => {
    const stacks = new Map([["stacks/sim", "another"]]);
    const tools = new Map([[agent.agentId, toolsDigestOf([{ name: "c++", version: "13", digest: null }])]]);
    expect(weigh([f], { now: f.at, stacks })[0]).toMatchObject({ weight: 0.5, because: ["the stack changed"] });
    expect(weigh([f], { now: f.at, stacks, tools })[0]).toMatchObject({
      weight: 0.25,
      because: ["the stack changed", "the tools of a1 changed"],
    });
    const same = {
      now: f.at,
      stacks: new Map([["stacks/sim", f.stackDigest]]),
      tools: new Map([[agent.agentId, toolsDigestOf(agent.tools)]]),
    };
    expect(weigh([f], same)[0]?.weight).toBe(1);
  });

  it("is shared out where findings of overlapping scopes contradict each other; all are kept and name each other", () => {
    const all = [of(5, { id: "a.e1" }), of(4, { id: "b.e1" }), of(0.8, { id: "c.e1" })];
    const weighed = new Map(weigh(all, { now: f.at }).map((w) => [w.id, w]));
    expect(weighed.size).toBe(3);
    expect(weighed.get("a.e1")).toMatchObject({ contradictedBy: ["c.e1"], because: ["contradicted by 1"] });
    expect(weighed.get("a.e1")?.weight).toBeCloseTo(2 / 3);
    expect(weighed.get("c.e1")?.contradictedBy).toEqual(["a.e1", "b.e1"]);
    expect(weighed.get("c.e1")?.weight).toBeCloseTo(1 / 3);
  });

  it("is whole where the scopes are too far apart to contradict, where another thing was replaced, or where nothing was shown", () => {
    const slow = of(0.8, { id: "c.e1" });
    const gpu = { ...slow, scope: { ...slow.scope, device: "nvidia" as const, isa: "sm_90" } };
    const elsewhere = { ...slow, idea: "q4 over bindings/linear/q8.cpp" };
    for (const other of [gpu, elsewhere, of(1, { id: "d.e1" })])
      expect(weigh([f, other], { now: f.at }).map((w) => [w.weight, w.contradictedBy])).toEqual([
        [1, []],
        [1, []],
      ]);
    // A mechanism that says why it can't work stands against a measurement that says it does.
    expect(weigh([f, { ...slow, outcome: "abandoned", effect: null }], { now: f.at }).map((w) => w.weight)).toEqual([0.5, 0.5]);
  });
});
