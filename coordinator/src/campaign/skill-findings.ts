import type { CampaignEvent } from "@vibeserve/shared";
import { seedBindings } from "../stack/compose.ts";
import { find, fold, type Campaign } from "./campaign.machine.ts";
import { crownFailure } from "./crowning.ts";
import type { Experiment } from "./experiment.machine.ts";

/** What one campaign showed of one skill by itself: what several gained together says nothing of each. */
export interface SkillFinding {
  skill: string;
  /** abandoned: a stated mechanism says why it can't work here; the words are a model's. */
  outcome: "proven" | "disproven" | "abandoned";
  /** Over the parent, as screened; null where it was never measured. */
  ratio: { point: number; lo: number; hi: number; pairs: number } | null;
  /** Files that bound the skill's place in the parent: what the ratio is over. Empty where it was never tried. */
  over: string[];
  /** Why the leader that it made was refused when it was to be crowned; null: it was not. */
  refused: string | null;
  /** Abandoned: the reason. */
  mechanism: string;
  target: string;
  device: string;
  isa: string;
  cores: number;
  simulated: boolean;
  campaign: string;
  /** Null: abandoned without a try. */
  experiment: string | null;
  at: number;
}

/** Findings of a campaign that has ended, oldest first; none of one that has not. Pure. */
export function skillFindings(events: readonly CampaignEvent[]): SkillFinding[] {
  const c = events.reduce<Campaign | null>(fold, null);
  const { device } = c ?? {};
  if (!c?.ended || !device) return [];
  const where = {
    ...{ target: c.target.name, campaign: c.id, device: device.name },
    ...{ isa: device.isa, cores: device.cores, simulated: device.simulated },
  };
  return events.flatMap(({ fact, at }): SkillFinding[] => {
    if (fact.type !== "experiment.settled") return [];
    const x = find(c, fact.experimentId);
    const [skill, ...others] = x?.hypothesis.skills ?? [];
    const outcome = fact.strategy === "abandoned" ? fact.strategy : fact.outcome;
    if (!x || skill === undefined || others.length > 0 || !isTold(outcome)) return [];
    const over = replaced(c, x);
    const refused = outcome === "proven" ? crownFailure(c, x.id) : null;
    const mechanism = outcome === "abandoned" ? fact.reason : "";
    return [{ skill, outcome, ratio: fact.ratio, over, refused, mechanism, experiment: x.id, at, ...where }];
  });
}

/** What its parent bound where the experiment binds something else. */
export function replaced(c: Campaign, x: Experiment): string[] {
  const [before, after] = [find(c, x.hypothesis.parent)?.bindings ?? seedBindings(), x.bindings ?? {}];
  return [...new Set(Object.keys(after).flatMap((seam) => (after[seam] === before[seam] ? [] : (before[seam] ?? []))))];
}

const isTold = (outcome: string): outcome is SkillFinding["outcome"] => ["proven", "disproven", "abandoned"].includes(outcome);
