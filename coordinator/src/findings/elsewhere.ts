import type { ChampionRef, Skill } from "@vibeserve/shared";
import { find, type Campaign } from "../campaign/campaign.machine.ts";
import { fellApart } from "../campaign/planning.ts";
import type { Observation } from "../playbook/estimate.ts";
import { bindingPath, type Catalog } from "../stack/catalog.ts";
import { boundSkills } from "../stack/compose.ts";
import { findingsOf, type Told } from "./finding.ts";
import { scopeOf, similarity } from "./scope.ts";
import { weigh } from "./weigh.ts";

/** A champion of another campaign as a hypothesis here: the skills that it binds. It is proven here again, or it is nothing. */
export interface Port {
  of: ChampionRef;
  /** Where it leads, for people. */
  where: string;
  skills: readonly string[];
  /** ln of what it gained there over the seed, and how much of that may be hoped for here, 0 to 1. */
  logGain: number;
  similarity: number;
}

/** What campaigns of other scopes leave to this one. */
export interface Elsewhere {
  observations: Observation[];
  /** The most valuable first: gain × similarity. */
  ports: Port[];
  /** For models, the most valuable last. */
  lines: string[];
}

export const NOTHING: Elsewhere = { observations: [], ports: [], lines: [] };

/** Below this a finding of elsewhere is not worth its line in a prompt. */
const LEAST_WEIGHT = 0.1;

/** Campaigns whose observations count in full: the same stack, byte for byte, and ISA; real for real. */
export const isHome = (told: Told, c: Campaign, stackDigest: string): boolean =>
  told.stackDigest === stackDigest && told.state.device?.isa === c.device?.isa && told.state.device?.simulated === c.device?.simulated;

/**
 * What ended campaigns offer to campaign `c`. Observations and lines come from other scopes only, since `c` has those of its own in full; ports from all. Pure.
 */
export function elsewhere(all: readonly Told[], c: Campaign, catalog: Catalog, now: number): Elsewhere {
  const here = scopeOf(c);
  if (!here) return NOTHING;
  const ended = all.filter((t) => t.state.id !== c.id && t.state.ended !== null);
  const far = ended.filter((t) => !isHome(t, c, catalog.digest));
  const weighed = weigh(far.flatMap(findingsOf), { now, stacks: new Map([[c.target.seed, catalog.digest]]) })
    .map((f) => ({ ...f, weight: f.weight * similarity(f.scope, here) }))
    .filter((f) => f.weight >= LEAST_WEIGHT)
    .sort((a, b) => a.weight - b.weight || a.at - b.at);
  const observations = weighed.flatMap((f): Observation[] => {
    const [skill] = f.skills;
    if (f.kind !== "skill" || !f.effect || f.scope.seed !== here.seed || skill === undefined || !catalog.skills.has(skill)) return [];
    return [{ skill, logGain: Math.log(f.effect.point), over: skillsOf(catalog, f.over), proved: false, weight: f.weight }];
  });
  const lines = weighed.map((f) => {
    const what = f.kind === "code" ? f.claim : f.skills.join("+") || f.idea;
    const effect = f.effect ? ` ${f.effect.point.toFixed(3)}x [${f.effect.lo.toFixed(3)}, ${f.effect.hi.toFixed(3)}]` : "";
    const notes = [`weight ${f.weight.toFixed(2)}`, ...f.because, ...(f.reason === "" ? [] : [f.reason])].join(", ");
    return `elsewhere (${f.scope.isa}, ${f.scope.model}, ${f.id}): ${f.outcome}${effect}: ${what} (${notes})`;
  });
  // What fell apart here is tried one by one; what holds elsewhere may still hold here.
  const apart = ended.filter((t) => !far.includes(t)).some(({ state }) => fellApart(state));
  return { observations, ports: portsTo(apart ? far : ended, c, catalog), lines };
}

function skillsOf(catalog: Catalog, paths: readonly string[]): string[] {
  return [...catalog.skills].flatMap(([id, { skill }]: [string, { skill: Skill }]) =>
    paths.includes(bindingPath(skill) ?? "") ? [id] : [],
  );
}

/** Champions put together from shipped bindings of this seed. Code of a model is in no binding: it is told in a line, and measured by a matrix. */
function portsTo(ended: readonly Told[], c: Campaign, catalog: Catalog): Port[] {
  const here = scopeOf(c);
  return ended
    .flatMap(({ state }): Port[] => {
      const [won, there] = [state.champions.at(-1), scopeOf(state)];
      const code = find(state, won?.experimentId ?? "")?.provenance;
      if (!here || !there || !won || code !== "shipped" || there.seed !== here.seed) return [];
      const skills = boundSkills(catalog, won.bindings);
      const near = similarity(there, here);
      if (skills.length < 2 || near === 0) return [];
      const logGain = state.champions.reduce((sum, { repeat }) => sum + Math.log(repeat.point), 0);
      return [
        {
          of: { campaign: state.id, experimentId: won.experimentId },
          where: `${state.target.name} on ${there.isa}`,
          skills,
          logGain,
          similarity: near,
        },
      ];
    })
    .sort((a, b) => b.logGain * b.similarity - a.logGain * a.similarity || (a.of.campaign < b.of.campaign ? -1 : 1));
}
