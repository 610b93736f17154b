import type { Finding } from "./finding.ts";
import { similarity } from "./scope.ts";

/** What is installed and registered now; what is not given has not changed as far as anyone knows. */
export interface Today {
  now: number;
  /** Digest of seed and skills, by the seed's folder. */
  stacks?: ReadonlyMap<string, string>;
  /** Digest of an agent's tools, by its id. */
  tools?: ReadonlyMap<string, string>;
}

/** A finding with what it is worth today. */
export interface WeighedFinding extends Finding {
  /** 0 to 1, in its own scope; elsewhere it counts times the similarity of scope. */
  weight: number;
  /** Why it is less than 1. */
  because: readonly string[];
  /** Findings of the same idea in overlapping scopes whose intervals lie on the other side of 1. */
  contradictedBy: readonly string[];
}

/** A changed stack or compiler may change any figure, and mostly changes few: half. */
const CHANGED = 0.5;
/** Scopes that are this similar speak of the same thing. */
const OVERLAP = 0.5;

const HALF_LIFE_MS = 90 * 24 * 3600_000;

/**
 * Every finding with its weight, newest first: 1 until it expires, then halved each 90 days; halved where the stack or its agent's tools are not the ones it
 * was measured with; and where others contradict it, times the share of similarity-weighted evidence that is on its side. Nothing is dropped.
 */
export function weigh(findings: readonly Finding[], today: Today): WeighedFinding[] {
  const byIdea = Map.groupBy(findings, (f) => f.idea);
  return findings
    .map((f) => {
      const because: string[] = [];
      let weight = 1;
      const less = (factor: number, why: string): void => {
        weight *= factor;
        because.push(why);
      };
      if (today.now > f.expiresAt) less(0.5 ** ((today.now - f.expiresAt) / HALF_LIFE_MS), "expired");
      if (isOther(today.stacks?.get(f.scope.seed), f.stackDigest)) less(CHANGED, "the stack changed");
      if (isOther(today.tools?.get(f.agentId), f.toolsDigest)) less(CHANGED, `the tools of ${f.agentId} changed`);
      const near = (byIdea.get(f.idea) ?? [])
        .map((other) => ({ other, near: similarity(f.scope, other.scope) }))
        .filter((n) => n.near >= OVERLAP);
      const against = near.filter(({ other }) => side(other) * side(f) < 0);
      if (against.length > 0) {
        const sum = (of: typeof near): number => of.reduce((total, n) => total + n.near, 0);
        const mine = sum(near.filter(({ other }) => side(other) === side(f)));
        less(mine / (mine + sum(against)), `contradicted by ${against.length}`);
      }
      return { ...f, weight, because, contradictedBy: against.map(({ other }) => other.id) };
    })
    .sort((a, b) => b.at - a.at);
}

const isOther = (today: string | undefined, then: string): boolean => today !== undefined && today !== then;

/** 1: its interval lies above 1; −1: below, or a mechanism says that it can't work; 0: it shows nothing. */
function side(f: Finding): number {
  if (f.outcome === "abandoned") return -1;
  if (f.effect === null) return 0;
  return f.effect.lo > 1 ? 1 : f.effect.hi < 1 ? -1 : 0;
}
