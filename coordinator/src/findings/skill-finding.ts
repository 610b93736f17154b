import type { CampaignEvent, Ratio } from "@vibeserve/shared";
import { findingsOf, toldBy } from "./finding.ts";

/** What one campaign showed of one skill by itself: what several gained together says nothing of each. */
export interface SkillFinding {
  skill: string;
  /** abandoned: a stated mechanism says why it can't work here; the words are a model's. */
  outcome: "proven" | "disproven" | "abandoned";
  /** Over the parent, as screened; null where it was never measured. */
  ratio: Ratio | null;
  /** Files that bound the skill's place in the parent: what the ratio is over. Empty where it was never tried. */
  over: readonly string[];
  /** Why the leader that it made was refused when it was to be crowned; null: it was not. */
  refused: string | null;
  /** Abandoned: the reason. */
  mechanism: string;
  experiment: string;
  at: number;
  target: string;
  campaign: string;
  device: string;
  isa: string;
  cores: number;
  simulated: boolean;
}

/** Findings of a campaign that has ended, oldest first; none of one that has not. Pure. */
export function skillFindings(events: readonly CampaignEvent[]): SkillFinding[] {
  const told = toldBy(events);
  if (!told?.state.device) return [];
  const { target, id: campaign, device } = told.state;
  const { name, isa, cores, simulated } = device;
  const where = { target: target.name, campaign, device: name, isa, cores, simulated };
  return findingsOf(told).flatMap(({ skills, outcome, effect: ratio, over, reason, evidence: { experiment }, at }): SkillFinding[] => {
    const [skill, ...others] = skills;
    if (skill === undefined || others.length > 0 || outcome === "inconclusive") return [];
    const refused = outcome === "proven" && reason !== "" ? reason : null;
    const mechanism = outcome === "abandoned" ? reason : "";
    return [{ skill, outcome, ratio, over, refused, mechanism, experiment, at, ...where }];
  });
}
