import type { AgentInfo, Tool, Trial } from "@vibeserve/shared";
import { describe, expect, it } from "vitest";
import type { Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import { championNamed, championsOf } from "../../coordinator/src/findings/champions.ts";
import { matrixOf } from "../../coordinator/src/findings/matrix.ts";
import { due, newestChampions, requalification } from "../../coordinator/src/findings/requalify.ts";
import { standingOf } from "../../coordinator/src/findings/standing.ts";
import { agent, device, World, type SimSkill } from "../campaign/world.ts";

const SKILLS: SimSkill[] = [
  { id: "q4", seam: "linear", stated: 4, truth: 5 },
  { id: "threads", seam: "threading", stated: 2, truth: 1.9 },
];
const tools = (version: string): Tool[] => [{ name: "c++", version, digest: null }];
const withTools = (version: string): AgentInfo => ({ ...agent, tools: tools(version) });

/** A campaign that crowned a champion, `later` ms after the others, with the compiler of version 12. */
function ended(id: string, later = 0, options: ConstructorParameters<typeof World>[1] = {}, skills = SKILLS): Campaign {
  const w = new World(skills, options);
  w.run();
  return at(w.state, id, later);
}

function at(c: Campaign, id: string, later: number): Campaign {
  return {
    ...c,
    id,
    agent: withTools("12"),
    createdAt: c.createdAt + later,
    champions: c.champions.map((x) => ({ ...x, at: x.at + later })),
    experiments: c.experiments.map((x) => ({ ...x, settledAt: x.settledAt + later })),
    ended: c.ended && { ...c.ended, at: c.ended.at + later },
  };
}

const DAY = 24 * 3600_000;
const first = ended("one");
const second = ended("two", DAY);
const champions = championsOf([first, second]);
const [newest, oldest] = champions;
if (!newest || !oldest) throw new Error("no champions");

/** A trial of the newest champion, with the compiler of this version. */
function trial(truth: number, version: string, id = "try", breaks: Partial<SimSkill> = {}): Campaign {
  const champs = [newest, oldest].map((c) => c?.release.champion ?? { campaign: "", experimentId: "" });
  const options: Trial = { purpose: "requalify", because: "toolchain", champions: champs };
  const origins = { two: newest?.crowned.bindings ?? {}, one: {} };
  const w = ended(
    id,
    2 * DAY,
    { trial: options, origins },
    SKILLS.map((s) => ({ ...s, truth, ...breaks })),
  );
  return { ...w, agent: withTools(version) };
}

describe("champions", () => {
  it("are every crowned experiment, the newest first, by full name or by campaign; what a trial crowned is none", () => {
    expect(champions.map((c) => c.campaign.id)).toEqual(["two", "one"]);
    expect(championNamed(champions, undefined)?.campaign.id).toBe("two");
    expect(championNamed(champions, "one")?.name).toBe(oldest.name);
    expect(championNamed(champions, oldest.name)?.name).toBe(oldest.name);
    expect(championNamed(champions, "three")).toBeNull();
    expect(championsOf([first, second, trial(2, "13")])).toHaveLength(2);
    expect(newest.release.evidence).toMatchObject({
      simulated: true,
      jobs: expect.arrayContaining([`sim_${newest.crowned.experimentId}_repeat`]) as string[],
    });
  });
});

describe("the standing of a champion", () => {
  const standing = (more: Campaign[], agents: AgentInfo[] | null) => standingOf(newest, [first, second, ...more], agents);

  it("is proven as long as nothing that is known has changed", () => {
    for (const agents of [null, [], [withTools("12")]]) expect(standing([], agents)).toMatchObject({ state: "proven", changes: [] });
  });

  it("is stale with another compiler, driver, model or workload, and says which", () => {
    expect(standing([], [withTools("13")])).toMatchObject({ state: "stale", changes: [{ cause: "toolchain", what: "c++ 12 → 13" }] });
    const driver = { ...agent, tools: [...tools("12"), { name: "nvidia-driver", version: "570", digest: null }] };
    expect(standing([], [driver]).changes).toEqual([{ cause: "driver", what: "nvidia-driver none → 570" }]);
    const labelled = { ...withTools("12"), devices: [{ ...device, labels: { "nvidia.com/cuda.driver.major": "570" } }] };
    expect(standing([], [labelled]).changes.map((c) => c.cause)).toEqual(["driver"]);
    const later = ended("three", 2 * DAY);
    const model = { ...later, target: { ...later.target, model: { ...later.target.model, sha256: "f".repeat(64) } } };
    expect(standing([model], null).changes.map((c) => c.cause)).toEqual(["model"]);
    expect(standing([{ ...later, workloadDigest: "e".repeat(64) }], null).changes.map((c) => c.cause)).toEqual(["workload"]);
    expect(standing([{ ...later, target: { ...later.target, deviceCount: 2 } }], null).changes).toEqual([
      { cause: "workload", what: "on 2 devices together since campaign three" },
    ]);
  });

  it("is proven again by a trial that confirms it, with what it was confirmed with", () => {
    const good = trial(2, "13");
    expect(standing([good], [withTools("13")])).toMatchObject({ state: "proven", proof: { campaign: "try" } });
    expect(standing([good], [withTools("14")])).toMatchObject({ state: "stale", changes: [{ what: "c++ 13 → 14" }] });
    expect(standing([{ ...good, ended: null }], [withTools("13")])).toMatchObject({ state: "requalifying" });
  });

  it("is rolled back by one that does not, until one does", () => {
    const bad = trial(0.5, "13");
    expect(standing([bad], [withTools("13")])).toMatchObject({ state: "rolled-back", to: "seed", changes: [] });
    expect(standing([bad], [withTools("14")])).toMatchObject({ state: "rolled-back", changes: [{ what: "c++ 13 → 14" }] });
    const again = at(trial(2, "13", "again"), "again", DAY);
    expect(standing([bad, { ...again, agent: withTools("14") }], [withTools("14")]).state).toBe("proven");
  });
});

describe("what is due to be tested again", () => {
  const all = [first, second];

  it("is the newest champion of each place that is stale, with the one before it to fall back on", () => {
    expect(newestChampions(champions).map((c) => c.name)).toEqual([newest.name]);
    const [one, ...rest] = due(champions, all, [withTools("13")]);
    expect(rest).toEqual([]);
    // The same tree is no other champion to go back to.
    expect(one?.options.trial).toEqual({ purpose: "requalify", because: "toolchain", champions: [newest.release.champion] });
    const other = ended("zero", -DAY, {}, SKILLS.slice(0, 1));
    const withOther = championsOf([...all, other]);
    const asked = requalification(newest, "schedule", { champions: withOther, campaigns: [...all, other], agents: null });
    expect(asked.options.trial?.champions.map((c) => c.campaign)).toEqual(["two", "zero"]);
    expect(asked.target).toMatchObject({ name: "sim", agent: "playbook", baselines: [] });
    expect(due(champions, all, [withTools("12")])).toEqual([]);
    // On a machine with two pools it is tested on the one that it was proven on; a label that says nothing of that is not asked for.
    const labels = { "vibeserve.dev/cpu.isa": "avx2", "vibeserve.dev/masked": "true", "vibeserve.dev/cpu.cores": "2" };
    const masked = championsOf([{ ...second, device: { ...device, labels } }]);
    const [on] = due(
      masked,
      masked.map((c) => c.campaign),
      [withTools("13")],
    );
    expect(on?.target.device).toEqual({ "vibeserve.dev/cpu.isa": "avx2", "vibeserve.dev/masked": "true" });
  });

  it("is none that was tested with these tools already, whatever came of it", () => {
    const agents = [withTools("13")];
    for (const tested of [trial(2, "13"), trial(0.5, "13"), { ...trial(2, "13"), ended: null }])
      expect(due(champions, [...all, tested], agents)).toEqual([]);
    const undecided = trial(2, "13");
    expect(due(champions, [...all, { ...undecided, ended: { outcome: "cancelled", reason: "", at: 1 } }], agents)).toEqual([]);
    expect(due(champions, [...all, trial(2, "13")], [withTools("14")])).toHaveLength(1);
  });
});

describe("the portability matrix", () => {
  it("holds what was measured directly, what fails, and what is unknown", () => {
    const there = ended("far", DAY / 2, { device: { ...device, id: "d2", isa: "avx512f" } }, SKILLS.slice(0, 1));
    const rows = newestChampions(championsOf([second, there]));
    const unknown = matrixOf(rows, [second, there]);
    expect(unknown.columns).toEqual(["sim@avx2", "sim@avx512f"]);
    expect(unknown.rows.map((r) => [r.champion.campaign.id, r.cells.map((c) => c.known)])).toEqual([
      ["two", ["measured", "no"]],
      ["far", ["measured", "measured"]],
    ]);
    // On the way to its own champion the search there came to the very tree of the other.
    expect(unknown.rows[1]?.cells[0]).toMatchObject({ evidence: "two.e1" });
    expect(unknown.rows[0]?.cells[1]).toEqual({ known: "no", why: "not measured" });
    const another = {
      ...second,
      workloadDigest: "e".repeat(64),
      createdAt: second.createdAt + DAY,
      id: "three",
      experiments: [],
      champions: [],
    };
    expect(matrixOf(rows, [second, there, another]).rows[1]?.cells[0]).toEqual({ known: "no", why: "not measured" });
    const together = { ...another, workloadDigest: second.workloadDigest, target: { ...second.target, deviceCount: 2 } };
    expect(matrixOf(rows, [second, there, together]).rows[1]?.cells[0]).toEqual({ known: "no", why: "not measured" });
    const champs = rows.map((r) => r.release.champion);
    const origins = { two: newest.crowned.bindings, far: there.champions[0]?.bindings ?? {} };
    const options = { trial: { purpose: "matrix" as const, because: null, champions: champs }, origins };
    const breaks = SKILLS.map((s) => (s.id === "threads" ? { ...s, breaks: "check" as const } : s));
    const measured = ended("m", 2 * DAY, { ...options, device: { ...device, id: "d2", isa: "avx512f" } }, breaks);
    const [two, far] = matrixOf(rows, [second, there, measured]).rows;
    expect(two?.cells[1]).toMatchObject({ known: "fails", evidence: "m.e1", why: expect.stringContaining("mean KL") as string });
    expect(far?.cells[1]).toMatchObject({ known: "measured", evidence: "m.e2" });
  });

  it("never holds a real champion on a simulated device, nor one on another model's target", () => {
    const real = { ...second, id: "real", device: { ...device, isa: "avx512f", simulated: false } };
    const model = {
      ...first,
      id: "other",
      target: { ...first.target, name: "other", model: { ...first.target.model, sha256: "f".repeat(64) } },
    };
    const { columns, rows } = matrixOf(championsOf([second]), [second, real, model]);
    expect(columns.map((c, i) => [c, rows[0]?.cells[i]?.known === "no" ? rows[0].cells[i].why : "measured"])).toEqual([
      ["other@avx2", "another model"],
      ["sim@avx2", "measured"],
      ["sim@avx512f", "one is simulated"],
    ]);
  });
});
