import { digestOf, nameOf, type CampaignEvent, type Provenance, type Ratio, type Tool } from "@vibeserve/shared";
import { find, fold, type Campaign } from "../campaign/campaign.machine.ts";
import { crownFailure } from "../campaign/crowning.ts";
import type { Experiment } from "../campaign/experiment.machine.ts";
import { jobsOf } from "../campaign/job-effect.ts";
import { seedBindings } from "../stack/compose.ts";
import { scopeOf, type Scope } from "./scope.ts";

/** A campaign as findings read it: its state, and the digest of what it could draw on. */
export interface Told {
  state: Campaign;
  stackDigest: string;
}

/**
 * What one experiment of an ended campaign showed, derived from that campaign's log and kept nowhere else. `effect` is challenger over parent in the
 * objective's metric, > 1 is better; null where nothing was measured.
 */
export interface Finding {
  /** "<campaign>.<experiment>". */
  id: string;
  /** One skill, several at once, code that a model wrote, or a champion of elsewhere. */
  kind: "skill" | "skills" | "code" | "port";
  /** The same for two findings that try the same thing in place of the same thing. */
  idea: string;
  claim: string;
  skills: readonly string[];
  /** Files that bound the changed seams in the parent. */
  over: readonly string[];
  outcome: "proven" | "disproven" | "inconclusive" | "abandoned";
  /** Why its leader was not crowned, or the mechanism with which it was given up; else "". */
  reason: string;
  scope: Scope;
  effect: Ratio | null;
  evidence: { campaign: string; experiment: string; jobs: readonly string[] };
  provenance: Provenance;
  simulated: boolean;
  stackDigest: string;
  /** Of the agent that measured: sha256 over names, versions and digests of its tools. */
  toolsDigest: string;
  agentId: string;
  at: number;
  expiresAt: number;
}

const DAY_MS = 24 * 3600_000;
/** A quarter: drivers and compilers of a fleet are rarely older. */
export const EXPIRY_MS = 90 * DAY_MS;

export const toolsDigestOf = (tools: readonly Tool[]): string =>
  digestOf([...tools].map((t) => [t.name, t.version, t.digest] as const).sort((a, b) => (a[0] < b[0] ? -1 : 1)));

/** A campaign's log as findings read it; null: it holds no campaign. */
export function toldBy(events: readonly CampaignEvent[]): Told | null {
  const state = events.reduce<Campaign | null>(fold, null);
  const created = events[0]?.fact;
  return state && created?.type === "campaign.created" ? { state, stackDigest: created.stackDigest } : null;
}

/** States are never changed, and each planner asks for the findings of all that have ended: they are worked out once a state. */
const known = new WeakMap<Campaign, Finding[]>();

/** Findings of a campaign that has ended, oldest first; none of one that has not: a leader may still be refused. */
export function findingsOf(told: Told): Finding[] {
  const found = known.get(told.state) ?? derived(told);
  known.set(told.state, found);
  return found;
}

function derived({ state: c, stackDigest }: Told): Finding[] {
  const scope = scopeOf(c);
  if (!c.ended || !scope || !c.agent) return [];
  const toolsDigest = toolsDigestOf(c.agent.tools);
  const { agentId } = c.agent;
  return c.experiments.flatMap((x): Finding[] => {
    const outcome = outcomeOf(x);
    if (!x.settled || outcome === null) return [];
    const over = replaced(c, x);
    const { skills, claim } = x.hypothesis;
    const kind = x.portOf ? "port" : x.implemented ? "code" : skills.length > 1 ? "skills" : "skill";
    const origin = x.portOf ? nameOf(x.portOf) : "";
    const what = kind === "port" ? origin : kind === "code" ? claim : [...skills].sort().join("+");
    const refused = outcome === "proven" ? (crownFailure(c, x.id) ?? "") : "";
    return [
      {
        id: `${c.id}.${x.id}`,
        kind,
        idea: over.length > 0 ? `${what} over ${over.join("+")}` : what,
        claim,
        skills,
        over,
        outcome,
        reason: outcome === "abandoned" ? x.settled.reason : refused,
        scope,
        effect: x.settled.ratio,
        evidence: { campaign: c.id, experiment: x.id, jobs: jobsOf(c, x.id) },
        provenance: x.provenance,
        simulated: scope.simulated,
        stackDigest,
        toolsDigest,
        agentId,
        at: x.settledAt,
        expiresAt: x.settledAt + EXPIRY_MS,
      },
    ];
  });
}

/** What its parent bound where the experiment binds something else. */
function replaced(c: Campaign, x: Experiment): string[] {
  const [before, after] = [find(c, x.hypothesis.parent)?.bindings ?? seedBindings(), x.bindings ?? {}];
  return [...new Set(Object.keys(after).flatMap((seam) => (after[seam] === before[seam] ? [] : (before[seam] ?? []))))];
}

/** What failed in its code, or for no fault of its own, says nothing of an idea. */
function outcomeOf({ settled }: Experiment): Finding["outcome"] | null {
  if (settled?.strategy === "abandoned") return "abandoned";
  const outcome = settled?.outcome;
  return outcome === "proven" || outcome === "disproven" || outcome === "inconclusive" ? outcome : null;
}
