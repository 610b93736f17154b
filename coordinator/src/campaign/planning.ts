import type { Bindings, CampaignFact, Hypothesis } from "@vibeserve/shared";
import { ideas, issueId, plan, spent, type PlanInput, type Try } from "../playbook/plan.ts";
import type { CandidateFiles } from "../checkpoint/candidate-files.ts";
import type { Port } from "../findings/elsewhere.ts";
import { displaced, type Observation } from "../playbook/estimate.ts";
import type { Catalog } from "../stack/catalog.ts";
import { applySkill, composeTree, overlayTree, seedBindings } from "../stack/compose.ts";
import { deviceCapReached } from "./caps.ts";
import { crownFailure } from "./crowning.ts";
import { roofReached } from "./rules.ts";
import type { Experiment } from "./experiment.machine.ts";
import { championRunS, elapsedMs, find, leader, SEED, type Campaign } from "./campaign.machine.ts";

/** Seconds that the check on ≥ 2,000 positions takes, generously: 24 s on two cores with AVX-512, 50 s with AVX2. */
const CROWN_CHECK_S = 50;
/** Runs of the seed in crowning: two comparisons of 2 to 4 and 4 to 8 pairs, usually the fewest, and a warm-up run each. */
const CROWN_RUNS = 10;
/** What the seed's run of the slice is taken to last before it was measured: slices are sized for at most 15 s. */
const SLICE_S = 12;
/** What an experiment is taken to cost before one on top of a leader has been measured: a first one pays for the seed's slow side, no later one does. */
const FIRST_EXPERIMENT_S = 60;

/**
 * Outcome of effect `plan`: the fact to append. findings: observations of earlier campaigns, those of other scopes with their weight. ports: champions of other
 * campaigns; each is tried once, as long as nothing leads but the seed.
 */
export function planNext(
  c: Campaign,
  catalog: Catalog,
  findings: readonly Observation[],
  now: number,
  ports: readonly Port[] = [],
): CampaignFact {
  if (!c.device) throw new Error(`campaign ${c.id}: planned before a device was bound`);
  const from = leader(c);
  const input: PlanInput = {
    catalog,
    device: c.device,
    metric: c.target.objective,
    leader: from,
    bindings: bindingsOf(c, from),
    tries: c.experiments.flatMap(asTry),
    observations: [...findings, ...observations(c, catalog)],
    ...left(c, now),
    first: c.experiments.length === 0,
    ports: from === SEED ? ports.filter((p) => !triedPort(c, p)) : [],
  };
  if (!c.backlog.some((i) => i.filedBy === "playbook")) {
    const issues = ideas(input);
    if (issues.length > 0) return { type: "backlog.filed", issues };
  }
  const decided = plan(input);
  if (decided.kind === "end") return { type: "search.ended", reason: decided.reason };
  const cap = deviceCapReached(c, crowningS(c), FIRST_EXPERIMENT_S);
  if (cap !== null) return { type: "search.ended", reason: cap };
  const { hypothesis, weighed, portOf } = decided;
  const issues = hypothesis.skills.map(issueId);
  return {
    type: "experiment.proposed",
    experimentId: `e${c.experiments.length + 1}`,
    issues,
    hypothesis,
    weighed,
    ...(portOf ? { portOf } : {}),
  };
}

/** Ports that failed may be followed by so many more: each costs a build, a check and a screening of the seed's. */
const MAX_PORTS = 2;

/** Itself, or the same skills under another name; or enough were. */
function triedPort(c: Campaign, { of, skills }: Port): boolean {
  const same = (ids: readonly string[]): boolean => [...ids].sort().join() === [...skills].sort().join();
  const ports = c.experiments.filter((x) => x.portOf !== null);
  return (
    ports.length >= MAX_PORTS ||
    ports.some((x) => x.portOf?.campaign === of.campaign && x.portOf.experimentId === of.experimentId) ||
    c.experiments.some((x) => same(x.hypothesis.skills))
  );
}

/** Why the search is at its end, whoever plans: the budget, or the device's own limit; null: it goes on. */
export const searchOver = (c: Campaign, now: number): string | null =>
  spent(left(c, now)) ?? deviceCapReached(c, crowningS(c), FIRST_EXPERIMENT_S) ?? roofReached(c);

/** Why a running experiment's models are not asked any more: only time ends it. */
export function timeOver(c: Campaign, now: number): string | null {
  const { remainingS } = left(c, now);
  return remainingS > 0 ? null : `the search's share of ${c.target.budget.wallS} s is spent`;
}

function left(c: Campaign, now: number): Pick<PlanInput, "remainingS" | "experimentS" | "experimentsLeft"> {
  const took = c.experiments.filter((x) => x.settled && x.hypothesis.parent !== SEED).map((x) => (x.settledAt - x.proposedAt) / 1000);
  return {
    remainingS: c.target.budget.wallS - crowningS(c) - elapsedMs(c, now) / 1000,
    experimentS: took.length ? took.reduce((a, b) => a + b, 0) / took.length : FIRST_EXPERIMENT_S,
    experimentsLeft: c.target.budget.experiments - c.experiments.length,
  };
}

/** Seconds to keep back from the search for crowning; the seed's side of it is as slow as a screening against the seed has shown. */
function crowningS(c: Campaign): number {
  const seconds = c.experiments.filter((x) => x.hypothesis.parent === SEED).map((x) => championRunS(c, x.id));
  return CROWN_CHECK_S + CROWN_RUNS * (seconds.find((s) => s !== null) ?? SLICE_S);
}

/** What the screenings of this campaign showed of each skill; also what it leaves to later campaigns as findings. */
export function observations(c: Campaign, catalog: Catalog): Observation[] {
  return c.experiments.flatMap((x) => {
    const id = onlySkill(x);
    const item = catalog.skills.get(id ?? "");
    if (!x.settled?.ratio || id === null) return [];
    const over = item ? displaced(catalog, bindingsOf(c, x.hypothesis.parent), item.skill) : [];
    return [{ skill: id, logGain: Math.log(x.settled.ratio.point), over, proved: heldUp(c, x) }];
  });
}

/** Several proved skills that went in together and did not come to a champion: they do not hold together, whatever each showed by itself. */
export const fellApart = (c: Campaign): boolean =>
  c.experiments.some((x) => !x.implemented && x.portOf === null && x.hypothesis.skills.length > 1 && x.settled !== null && !heldUp(c, x));

/** Proven against its parent, and no crowning of it failed. */
const heldUp = (c: Campaign, x: Experiment): boolean => x.settled?.outcome === "proven" && crownFailure(c, x.id) === null;

/** The skill that an experiment tried by itself; null: none, or several at once, of which nobody knows which gained what. */
function onlySkill({ hypothesis, implemented }: Experiment): string | null {
  if (implemented) return null;
  const [skill, ...others] = hypothesis.skills;
  return others.length === 0 ? (skill ?? null) : null;
}

/**
 * The files of an experiment's tree, and what its commit says. Effect `draft` commits them on top of the parent's commit. parentTree: the parent's files where
 * a model wrote among them; null: bindings say it all.
 */
export function draft(
  c: Campaign,
  catalog: Catalog,
  experimentId: string,
  parentTree: CandidateFiles | null,
): { files: CandidateFiles; bindings: Bindings; message: string; parentCommit: string | null } {
  const x = find(c, experimentId);
  if (!x) throw new Error(`campaign ${c.id}: no experiment ${experimentId}`);
  const parent = experimentId === SEED ? null : find(c, x.hypothesis.parent);
  const base = parent ? bindingsOf(c, parent.id) : seedBindings();
  const bindings = x.hypothesis.skills.reduce((b, id) => applySkill(catalog, b, id), base);
  const isaBits = c.device?.isaBits ?? [];
  return {
    files: parentTree ? overlayTree(parentTree, catalog, { from: base, to: bindings }, isaBits) : composeTree(catalog, bindings, isaBits),
    bindings,
    message: message(experimentId, x.hypothesis),
    parentCommit: parent?.git?.commit ?? null,
  };
}

function message(id: string, h: Hypothesis): string {
  return `${id}: ${h.skills.join(", ") || "the seed"}\n\n${h.claim}\n\nMechanism: ${h.mechanism}\nFalsified if: ${h.falsification}\n`;
}

function bindingsOf(c: Campaign, id: string): Bindings {
  return find(c, id)?.bindings ?? seedBindings();
}

function asTry(x: Experiment): Try[] {
  const skill = onlySkill(x);
  return x.settled && skill !== null ? [{ skill, outcome: x.settled.outcome, parent: x.hypothesis.parent }] : [];
}
