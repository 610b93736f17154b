import type { Bindings, CampaignFact, Hypothesis } from "@vibeserve/shared";
import { plan, type Try } from "../playbook/plan.ts";
import type { Observation } from "../playbook/estimate.ts";
import type { Catalog } from "../stack/catalog.ts";
import { applySkill, composeTree, seedBindings, skillAt } from "../stack/compose.ts";
import { elapsedMs, find, leader, SEED, type Campaign } from "./campaign.machine.ts";

/** Seconds kept back from the search for crowning: check on ≥ 2,000 positions, two comparisons on the slice where the seed needs ~15 s a run. */
const CROWNING_S = 170;
/** What an experiment is taken to cost before one on top of a leader has been measured: a first one pays for the seed's slow side, no later one does. */
const FIRST_EXPERIMENT_S = 60;

/** Outcome of effect `plan`: the fact to append. findings: observations of earlier campaigns on the same ISA. */
export function planNext(c: Campaign, catalog: Catalog, findings: readonly Observation[], now: number): CampaignFact {
  if (!c.device) throw new Error(`campaign ${c.id}: planned before a device was bound`);
  const from = leader(c);
  const spent = c.experiments.filter((x) => x.settled && x.hypothesis.parent !== SEED).map((x) => (x.settledAt - x.proposedAt) / 1000);
  const decided = plan({
    catalog,
    device: c.device,
    metric: c.target.objective,
    leader: from,
    bindings: bindingsOf(c, from),
    tries: c.experiments.flatMap(asTry),
    observations: [...findings, ...observations(c, catalog)],
    remainingS: c.target.budget.wallS - CROWNING_S - elapsedMs(c, now) / 1000,
    experimentS: spent.length ? spent.reduce((a, b) => a + b, 0) / spent.length : FIRST_EXPERIMENT_S,
    experimentsLeft: c.target.budget.experiments - c.experiments.length,
  });
  if (decided.kind === "end") return { type: "search.ended", reason: decided.reason };
  const { hypothesis, weighed } = decided;
  return { type: "experiment.proposed", experimentId: `e${c.experiments.length + 1}`, hypothesis, weighed };
}

/** What the screenings of this campaign showed of each skill; also what it leaves to later campaigns as findings. */
export function observations(c: Campaign, catalog: Catalog): Observation[] {
  return c.experiments.flatMap((x) => {
    const skill = x.hypothesis.skills[0];
    if (!x.settled?.ratio || skill === undefined) return [];
    const parent = bindingsOf(c, x.hypothesis.parent);
    const seams = catalog.skills.get(skill)?.skill.seams ?? [];
    const over = [...new Set(seams.map((seam) => skillAt(catalog, parent, seam)).filter((id) => id !== null))];
    return [{ skill, logGain: Math.log(x.settled.ratio.point), over }];
  });
}

/** The files of an experiment's tree, and what its commit says. Effect `draft` commits them on top of the parent's commit. */
export function draft(
  c: Campaign,
  catalog: Catalog,
  experimentId: string,
): { files: Map<string, Buffer>; bindings: Bindings; message: string; parentCommit: string | null } {
  const x = find(c, experimentId);
  if (!x) throw new Error(`campaign ${c.id}: no experiment ${experimentId}`);
  const parent = experimentId === SEED ? null : find(c, x.hypothesis.parent);
  const base = parent ? bindingsOf(c, parent.id) : seedBindings();
  const bindings = x.hypothesis.skills.reduce((b, id) => applySkill(catalog, b, id), base);
  return {
    files: composeTree(catalog, bindings, c.device?.isaBits ?? []),
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

function asTry(x: Campaign["experiments"][number]): Try[] {
  const skill = x.hypothesis.skills[0];
  return x.settled && skill !== undefined ? [{ skill, outcome: x.settled.outcome, parent: x.hypothesis.parent }] : [];
}
