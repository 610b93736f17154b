import type { CampaignEvent, JobKind, TurnUsage } from "@vibeserve/shared";
import { addUsage, NO_USAGE } from "../agents/provider.ts";
import { members, type Member } from "./portfolio.ts";
import { elapsedMs, find, fold, SEED, type Campaign } from "./campaign.machine.ts";
import type { Turn } from "./turns.ts";

/** What turns with models took. Dollars are US dollars; tokens as the provider billed them, none for turns whose bill is not known. */
export interface Spending extends TurnUsage {
  turns: number;
  /** cacheRead / (input + cacheRead + cacheWrite): the three are disjoint. Null: no input. */
  cachedShare: number | null;
  reservedUsd: number;
  settledUsd: number;
}

export type Row = { name: string } & Spending;

export interface JobSeconds {
  experiment: string;
  job: JobKind;
  /** Results, accepted or not. */
  results: number;
  seconds: number;
}

/** What a campaign has cost so far. Every turn is in exactly one row of each of the three tables. */
export interface CostReport {
  v: 1;
  kind: "cost";
  campaign: string;
  target: string;
  outcome: string | null;
  /** Pauses left out, and the pauses. */
  wallS: number;
  pausedS: number;
  total: Spending;
  byRole: Row[];
  byModel: Row[];
  /** A planner's turns belong to the experiment that was proposed next, or to SEARCH_END; UNDECIDED: neither has come. */
  byExperiment: Row[];
  /** Turns without an answer: under way (their reserve is still promised), and broken off or lost, which are charged as reserved. */
  open: { turns: number; reservedUsd: number };
  cutOff: { turns: number; usd: number };
  lost: { turns: number; usd: number };
  /** By the agents' clocks, from every result; unacceptedS: of results that came too late or twice and decided nothing. */
  device: { totalS: number; unacceptedS: number; jobs: JobSeconds[] };
  /** Members of a portfolio; empty for a campaign of one agent. */
  portfolio: Member[];
  /** percent: 100 × (product of the leaders' screened ratios over their parents − 1); null, and no price, while no candidate became a leader. */
  accepted: { leaders: string[]; percent: number | null; usdPerPercent: number | null };
}

export const SEARCH_END = "(end of search)";
export const UNDECIDED = "(undecided)";

/** The costs in a campaign's log, in progress or ended. `now`: ms since the epoch. The log must begin with campaign.created. Pure. */
export function costOf(events: readonly CampaignEvent[], now: number): CostReport {
  const c = events.reduce<Campaign | null>(fold, null);
  if (!c) throw new Error("an empty log has no costs");
  const owners = experimentsOf(events);
  const total = spending(c.turns);
  const failed = (code: string) => {
    const mine = c.turns.filter((t) => t.outcome?.status === "failed" && t.outcome.code === code);
    return { turns: mine.length, usd: sum(mine, (t) => t.usd) };
  };
  const open = c.turns.filter((t) => t.outcome === null);
  const leaders = c.leaders.filter((id) => id !== SEED);
  const product = leaders.reduce((p, id) => p * (find(c, id)?.settled?.ratio?.point ?? 1), 1);
  const percent = leaders.length > 0 ? 100 * (product - 1) : null;
  const until = c.ended?.at ?? now;
  const wallMs = elapsedMs(c, now);
  return {
    v: 1,
    kind: "cost",
    campaign: c.id,
    target: c.target.name,
    outcome: c.ended?.outcome ?? null,
    wallS: wallMs / 1000,
    pausedS: (until - c.createdAt - wallMs) / 1000,
    total,
    byRole: rows(c.turns, (t) => t.role),
    byModel: rows(c.turns, (t) => t.model),
    byExperiment: rows(c.turns, (t) => t.of?.experimentId ?? owners.get(t.id) ?? UNDECIDED),
    open: { turns: open.length, reservedUsd: sum(open, (t) => t.reservedUsd) },
    cutOff: failed("cut-off"),
    lost: failed("lost"),
    device: deviceIn(events),
    portfolio: c.target.agent === "portfolio" ? members(c) : [],
    accepted: { leaders, percent, usdPerPercent: percent !== null && percent > 0 ? total.settledUsd / percent : null },
  };
}

/** Turn of a planner → the decision that followed it. */
function experimentsOf(events: readonly CampaignEvent[]): Map<string, string> {
  const owners = new Map<string, string>();
  let waiting: string[] = [];
  for (const { fact } of events) {
    if (fact.type === "turn.requested" && fact.of === undefined) waiting.push(fact.turnId);
    const owner = fact.type === "experiment.proposed" ? fact.experimentId : fact.type === "search.ended" ? SEARCH_END : null;
    if (owner === null) continue;
    for (const id of waiting) if (!owners.has(id)) owners.set(id, owner);
    waiting = [];
  }
  return owners;
}

function rows(turns: readonly Turn[], nameOf: (t: Turn) => string): Row[] {
  return [...Map.groupBy(turns, nameOf)].map(([name, mine]) => ({ name, ...spending(mine) }));
}

function spending(all: readonly Turn[]): Spending {
  const usage = all.flatMap((t) => t.outcome?.usage ?? []).reduce(addUsage, NO_USAGE);
  const read = usage.input + usage.cacheRead + usage.cacheWrite;
  return {
    turns: all.length,
    ...usage,
    cachedShare: read > 0 ? usage.cacheRead / read : null,
    reservedUsd: sum(all, (t) => t.reservedUsd),
    settledUsd: sum(all, (t) => t.usd),
  };
}

function deviceIn(events: readonly CampaignEvent[]): CostReport["device"] {
  const jobs = new Map<string, { experiment: string; job: JobKind }>();
  const by = new Map<string, JobSeconds>();
  let unacceptedS = 0;
  for (const { fact } of events) {
    if (fact.type === "job.requested") jobs.set(fact.job.id, { experiment: fact.job.experiment, job: fact.job.spec.kind });
    const of = fact.type === "job.settled" ? jobs.get(fact.result.jobId) : undefined;
    if (fact.type !== "job.settled" || !of) continue;
    const seconds = Math.max(0, fact.result.endedAt - fact.result.startedAt) / 1000;
    if (!fact.accepted) unacceptedS += seconds;
    const key = `${of.experiment} ${of.job}`;
    const row = by.get(key) ?? { ...of, results: 0, seconds: 0 };
    by.set(key, { ...row, results: row.results + 1, seconds: row.seconds + seconds });
  }
  const all = [...by.values()];
  return { totalS: sum(all, (j) => j.seconds), unacceptedS, jobs: all };
}

const sum = <T>(items: readonly T[], of: (item: T) => number): number => items.reduce((s, item) => s + of(item), 0);
