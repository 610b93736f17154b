import type { Bindings, Skill } from "@vibeserve/shared";
import type { Catalog } from "../stack/catalog.ts";
import { skillAt } from "../stack/compose.ts";

/**
 * A measured effect of a skill: logGain is ln(challenger / parent) as screened. over: the skills that its seams were bound to in the parent
 * (empty: the seed's). Comes from this campaign's screenings and from findings of earlier campaigns on the same ISA.
 */
export interface Observation {
  skill: string;
  logGain: number;
  over: readonly string[];
  /** Its interval lay above 1, and no crowning of it failed. */
  proved: boolean;
  /** Measured in another scope: what it is worth here, 0 to 1. Absent: it counts in full. */
  weight?: number;
}

/** How sure the planner is of a gain it has never measured here, in ln units: one standard deviation, ~15 %. */
export const UNMEASURED_SD = 0.15;

/** Weight of "the skills' own figures are right" in units of one observation, for the calibration below. */
const TRUST = 2;

export interface Gains {
  /** ln of a skill's gain over the seed's binding of its seams, as measured or else as stated. */
  believed(id: string): number;
  measured(id: string): boolean;
  /** It was measured in another scope only. */
  measuredElsewhere(id: string): boolean;
  /** Some measurement of it showed a gain. */
  proved(id: string): boolean;
  /** ln of what an unmeasured skill's statement is worth where `over` are bound: what it claims beyond them, as far as such claims have held here. */
  claimed(id: string, over: readonly string[]): number;
}

/**
 * Beliefs from the skills' stated gains and from what was measured. A measured skill is worth what it measured (mean, if several times). An
 * unmeasured one is worth its stated ln gain times k, where k is how far the measured skills' gains came up to theirs:
 * k = (TRUST + Σ observed) / (TRUST + Σ stated), each in ln units and kept within [0.25, 2]. Measurements of other scopes enter with their weight w, and only
 * of skills that were not measured here: such a skill is worth w (1 at the most) of what they say and 1 − w of its statement, and stays unmeasured.
 */
export function learn(skills: ReadonlyMap<string, { skill: Skill }>, observations: readonly Observation[]): Gains {
  const stated = (id: string): number => Math.log(skills.get(id)?.skill.expectedGain.ratio ?? 1);
  const totals = new Map<string, { sum: number; n: number }>();
  let seen = 0;
  let promised = 0;
  const believed = (id: string): number => {
    const t = totals.get(id);
    return t ? t.sum / t.n : stated(id);
  };
  const here = new Set(observations.filter((o) => o.weight === undefined).map((o) => o.skill));
  for (const o of observations) {
    const { weight = 1 } = o;
    if (o.weight !== undefined && here.has(o.skill)) continue;
    const base = o.over.reduce((sum, id) => sum + believed(id), 0);
    const t = totals.get(o.skill) ?? { sum: 0, n: 0 };
    totals.set(o.skill, { sum: t.sum + weight * (o.logGain + base), n: t.n + weight });
    seen += weight * Math.max(0, o.logGain);
    promised += weight * Math.max(0, stated(o.skill) - o.over.reduce((sum, id) => sum + stated(id), 0));
  }
  const k = Math.min(2, Math.max(0.25, (TRUST + seen) / (TRUST + promised)));
  const stand = (id: string, over: readonly string[]): number => k * (stated(id) - over.reduce((sum, other) => sum + stated(other), 0));
  const claimed = (id: string, over: readonly string[]): number => {
    const t = totals.get(id);
    if (!t || here.has(id)) return stand(id, over);
    const share = Math.min(1, t.n);
    return share * (t.sum / t.n - over.reduce((sum, other) => sum + believed(other), 0)) + (1 - share) * stand(id, over);
  };
  const proved = new Set(observations.filter((o) => o.proved).map((o) => o.skill));
  return {
    ...{ believed, claimed, proved: (id) => proved.has(id), measured: (id) => here.has(id) },
    measuredElsewhere: (id) => totals.has(id) && !here.has(id),
  };
}

/** Skills that a skill would take the place of when it is bound on top of `bindings`. */
export function displaced(catalog: Catalog, bindings: Bindings, skill: Skill): string[] {
  return [...new Set(skill.seams.map((seam) => skillAt(catalog, bindings, seam)).filter((id) => id !== null))];
}

/**
 * ln of the gain expected from binding `skill` on top of `bindings`. Of two that were measured, the difference. An unmeasured one is held against what
 * it takes the place of by their statements alone: they share a scale, which a measurement of only one of them does not.
 */
export function expectedLogGain(gains: Gains, catalog: Catalog, bindings: Bindings, skill: Skill): number {
  const over = displaced(catalog, bindings, skill);
  if (!gains.measured(skill.id)) return gains.claimed(skill.id, over);
  return gains.believed(skill.id) - over.reduce((sum, id) => sum + gains.believed(id), 0);
}
