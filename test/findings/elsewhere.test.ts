import { describe, expect, it } from "vitest";
import type { Device } from "@vibeserve/shared";
import { elsewhere, type Elsewhere } from "../../coordinator/src/findings/elsewhere.ts";
import type { Told } from "../../coordinator/src/findings/finding.ts";
import { expectedLogGain, learn } from "../../coordinator/src/playbook/estimate.ts";
import { fellApart } from "../../coordinator/src/campaign/planning.ts";
import { seedBindings } from "../../coordinator/src/stack/compose.ts";
import { catalog, device, World, type SimSkill } from "../campaign/world.ts";

const SKILLS: SimSkill[] = [
  { id: "q4", seam: "linear", stated: 4, truth: 5 },
  { id: "threads", seam: "threading", stated: 2, truth: 1.9 },
  { id: "tile", seam: "attention", stated: 1.4, truth: 1.3, isa: ["avx512f"] },
];
const AVX512: Device = { ...device, id: "sim-1", isa: "avx512_vnni", isaBits: [...device.isaBits, "avx512f"] };

/** A campaign that has ended on a device with AVX-512, under a name of its own. */
function there(skills = SKILLS, id = "far", on = AVX512): Told {
  const w = new World(skills, { device: on });
  w.run();
  return { state: { ...w.state, id }, stackDigest: w.catalog.digest };
}

/** What it leaves to a campaign on AVX2 that has just been bound. */
function left(all: readonly Told[], skills = SKILLS): Elsewhere {
  const w = new World(skills);
  w.run(1);
  return elsewhere(all, w.state, w.catalog, w.now);
}

describe("what campaigns of other scopes leave to a planner", () => {
  it("counts by similarity of scope, and is told in lines; of the same stack and ISA it is nothing, since those count in full already", () => {
    const { observations, lines, ports } = left([there()]);
    expect(observations.map((o) => [o.skill, o.proved, o.weight])).toEqual([
      ["q4", false, 0.6],
      ["threads", false, 0.6],
      ["tile", false, 0.6],
    ]);
    expect(observations[0]?.logGain).toBeCloseTo(Math.log(5));
    expect(lines[0]).toMatch(/^elsewhere \(avx512_vnni, m, far\.e1\): proven 5\.000x \[4\.975, 5\.025\]: q4 \(weight 0\.60\)$/);
    expect(ports).toMatchObject([{ of: { campaign: "far" }, skills: ["threads", "q4", "tile"], similarity: 0.6 }]);
    const home = left([there(SKILLS.slice(0, 2), "home", device)]);
    expect([home.observations, home.lines]).toEqual([[], []]);
  });

  it("is nothing from what is real to what is simulated, from what goes on, or from another stack's code", () => {
    const far = there();
    const real = { ...far, state: { ...far.state, device: { ...AVX512, simulated: false } } };
    const running = { ...far, state: { ...far.state, ended: null } };
    for (const told of [real, running]) expect(left([told])).toEqual({ observations: [], ports: [], lines: [] });
    const torch = { ...far, state: { ...far.state, target: { ...far.state.target, seed: "stacks/torch" } } };
    expect(left([torch])).toMatchObject({ observations: [], ports: [] });
    expect(left([torch]).lines).toHaveLength(3);
  });

  it("shifts what a skill is believed to gain by its weight, and leaves what was measured here alone", () => {
    const all = catalog(SKILLS);
    const gain = (observations: Parameters<typeof learn>[1]) => {
      const gains = learn(all.skills, observations);
      const skill = all.skills.get("q4")?.skill;
      if (!skill) throw new Error("no skill");
      return { log: expectedLogGain(gains, all, seedBindings(), skill), measured: gains.measured("q4") };
    };
    const far = (weight: number) => ({ skill: "q4", logGain: Math.log(8), over: [], proved: false, weight });
    const nothing = gain([]).log;
    const [little, more, whole] = [0.1, 0.6, 1].map((w) => gain([far(w)]));
    expect(nothing).toBeCloseTo(Math.log(4));
    expect(little?.log).toBeGreaterThan(nothing);
    expect(more?.log).toBeGreaterThan(little?.log ?? 9);
    expect(whole).toEqual({ log: Math.log(8), measured: false });
    const here = { skill: "q4", logGain: Math.log(2), over: [], proved: true };
    expect(gain([far(1), here])).toEqual({ log: Math.log(2), measured: true });
  });
});

describe("a champion of elsewhere", () => {
  it("is the first hypothesis here, with the skills that this device can use, and is proven by the rules of any other", () => {
    const { ports, observations } = left([there()]);
    const w = new World(SKILLS, { ports, findings: observations });
    w.run();
    const [first] = w.state.experiments;
    expect(first?.hypothesis.skills).toEqual(["threads", "q4"]);
    expect(first?.portOf).toEqual({ campaign: "far", experimentId: expect.stringMatching(/^e\d$/) as string });
    expect(first?.hypothesis.claim).toMatch(/^The champion far\.e\d \(sim on avx512_vnni\), ported to this device/);
    expect(first?.hypothesis.mechanism).toMatch(/not for this device: tile$/);
    expect(first?.settled?.outcome).toBe("proven");
    expect(w.state.champions.map((c) => c.experimentId)).toEqual(["e1"]);
    expect(Object.keys(w.state.ledger)).toEqual(expect.arrayContaining(["sim_e1_crown-check", "sim_e1_crown", "sim_e1_repeat"]));
  });

  it("that does not hold here is given up for the next, then for each skill by itself; its failure says nothing of what was proved here", () => {
    const bad = SKILLS.map((s) => ({ ...s, truth: s.id === "threads" ? 0.1 : s.truth }));
    const near = there(SKILLS, "near", { ...AVX512, isa: "avx512f" });
    const { ports } = left([there(), near, there([...SKILLS, { id: "head", seam: "head", stated: 2, truth: 3 }], "most")]);
    expect(ports.map((p) => p.of.campaign)).toEqual(["most", "far", "near"]);
    const w = new World(bad, { ports });
    w.run();
    // far and near bind what most bound here: the same skills are not tried twice.
    expect(w.state.experiments.map((x) => [x.portOf?.campaign ?? null, x.settled?.outcome]).slice(0, 3)).toEqual([
      ["most", "disproven"],
      ["far", "disproven"],
      [null, "proven"],
    ]);
    expect(fellApart(w.state)).toBe(false);
  });

  it("of which this device can use no two skills is not tried", () => {
    const only = [{ id: "tile", seam: "attention", stated: 2, truth: 2, isa: ["avx512f"] }, SKILLS[0]] as SimSkill[];
    const { ports } = left([there(only)], only);
    expect(ports).toHaveLength(1);
    const w = new World(only, { ports });
    w.run();
    expect(w.state.experiments.map((x) => x.portOf)).toEqual([null]);
  });
});
