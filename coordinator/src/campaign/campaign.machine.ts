import type {
  AgentInfo,
  AgentKind,
  Bindings,
  BuiltStack,
  CampaignEvent,
  CampaignFact,
  CampaignOptions,
  Device,
  Target,
  Workload,
} from "@vibeserve/shared";
import { edited, filed, resolved, taken, type Backlog } from "./backlog.ts";
import type { Effect } from "./effect.ts";
import { experimentNeeds, fresh, stepExperiment, stepName, type Experiment, type Surroundings } from "./experiment.machine.ts";
import { crowning } from "./crowning.ts";
import { engines, versusBaselines } from "./baselines.ts";
import { jobEffect, jobId, jobOutcome } from "./job-effect.ts";
import { buildSpec, checkSpec, stackOf } from "./job-specs.ts";
import { expired, purposeOf, requested, resumed, settled, suspected, type JobEntry, type Ledger } from "./ledger.ts";
import { answered, asked, type Turn } from "./turns.ts";
import { trialEnding } from "./trial.ts";
import { meanTokens, positionRate, screeningWorkload } from "./workloads.ts";

export const SEED = "seed";

export type Crowned = Extract<CampaignFact, { type: "champion.crowned" }>;

/** Everything a campaign knows: a fold over its facts (I5). Plain data; two folds of the same events are equal. */
export interface Campaign {
  id: string;
  seq: number;
  createdAt: number;
  lastAt: number;
  /** Time spent paused so far, and since when it has been paused now (0: it is not). */
  pausedMs: number;
  pausedAt: number;
  /** Why, the last time. */
  pausedFor: string;
  target: Target;
  options: CampaignOptions;
  workloadDigest: string;
  agent: AgentInfo | null;
  device: Device | null;
  seed: Experiment;
  backlog: Backlog;
  /** Exchanges with models, oldest first. */
  turns: readonly Turn[];
  experiments: readonly Experiment[];
  ledger: Ledger;
  /** Experiments whose screening showed a gain over the leader before them, oldest first: each is the parent of the next. */
  leaders: readonly string[];
  champions: readonly (Crowned & { at: number })[];
  searchEnded: string | null;
  /** Members of a portfolio that plan no more, and why. */
  stopped: Readonly<Partial<Record<AgentKind, string>>>;
  ended: { outcome: Extract<CampaignFact, { type: "campaign.ended" }>["outcome"]; reason: string; at: number } | null;
}

const seedExperiment = (stack: string, at: number): Experiment => {
  const hypothesis = {
    claim: `the seed ${stack} serves the target correctly`,
    mechanism: "plain scalar float32",
    expected: { metric: "-", ratio: 1 },
    activation: "-",
    falsification: "a check fails",
    invariants: [],
    parent: SEED,
    skills: [],
    passCriteria: ["the screening check passes"],
  };
  return fresh(SEED, hypothesis, { implemented: false, by: "playbook" }, undefined, at);
};

/** Folds one event. The first must be campaign.created (a bug otherwise); facts after campaign.ended are evidence and change nothing. */
export function fold(c: Campaign | null, event: CampaignEvent): Campaign {
  const { fact, at } = event;
  if (fact.type === "campaign.created") {
    if (c) throw new Error(`campaign ${event.campaign}: created twice`);
    return {
      id: event.campaign,
      seq: event.seq,
      createdAt: at,
      lastAt: at,
      pausedMs: 0,
      pausedAt: 0,
      pausedFor: "",
      target: fact.target,
      options: fact.options,
      workloadDigest: fact.workloadDigest,
      agent: null,
      device: null,
      seed: seedExperiment(fact.target.seed, at),
      backlog: [],
      turns: [],
      experiments: [],
      ledger: {},
      leaders: [SEED],
      champions: [],
      searchEnded: null,
      stopped: {},
      ended: null,
    };
  }
  if (!c) throw new Error(`campaign ${event.campaign}: first event is ${fact.type}, not campaign.created`);
  const now = { ...c, seq: event.seq, lastAt: at };
  return c.ended ? now : step(now, fact, at);
}

function step(c: Campaign, fact: Exclude<CampaignFact, { type: "campaign.created" }>, at: number): Campaign {
  switch (fact.type) {
    case "campaign.paused":
      return c.pausedAt ? c : { ...c, pausedAt: at, pausedFor: fact.reason };
    case "campaign.resumed":
      return c.pausedAt ? { ...c, pausedMs: c.pausedMs + (at - c.pausedAt), pausedAt: 0, ledger: resumed(c.ledger) } : c;
    case "campaign.ended":
      return { ...c, ended: { outcome: fact.outcome, reason: fact.reason, at } };
    case "device.bound":
      return { ...c, agent: fact.agent, device: fact.device, options: { ...c.options, baselines: engines(c, fact.agent) } };
    case "backlog.filed":
      return { ...c, backlog: filed(c.backlog, fact.issues) };
    case "experiment.proposed": {
      if (find(c, fact.experimentId)) return c;
      const { experimentId: id, hypothesis } = fact;
      const { agent } = c.target;
      const by = fact.by ?? (agent === "portfolio" ? "playbook" : agent);
      const own = fresh(id, hypothesis, { implemented: fact.author === "model", by }, find(c, hypothesis.parent), at);
      const next = { ...own, portOf: fact.portOf ?? null };
      return { ...c, experiments: [...c.experiments, next], backlog: taken(c.backlog, fact.issues, id) };
    }
    case "backlog.edited":
      return { ...c, backlog: edited(c.backlog, fact.issue, fact.strategy, fact.reason) };
    case "experiment.drafted":
    case "call.prepared":
    case "experiment.declared":
    case "experiment.returned":
    case "review.recorded":
    case "evaluation.recorded":
      return update(c, fact.experimentId, fact, at);
    case "experiment.settled": {
      const open = find(c, fact.experimentId)?.settled === null;
      if (!open) return c;
      const backlog = resolved(c.backlog, fact.experimentId, fact);
      const next = { ...update(c, fact.experimentId, fact, at), backlog };
      return fact.checkpoint === "leader" ? { ...next, leaders: [...next.leaders, fact.experimentId] } : next;
    }
    case "job.requested":
      return { ...c, ledger: requested(c.ledger, fact.job) };
    case "job.settled":
      return fact.accepted ? { ...c, ledger: settled(c.ledger, fact.result, at, fact.verdict) } : c;
    case "job.expired":
      return { ...c, ledger: expired(c.ledger, fact, at) };
    case "results.suspected": {
      const again = fact.jobs.filter((id) => undecided(c, c.ledger[id]));
      return { ...c, ledger: suspected(c.ledger, again, fact.deviceId) };
    }
    case "champion.crowned":
      return c.champions.some((x) => x.experimentId === fact.experimentId) ? c : { ...c, champions: [...c.champions, { ...fact, at }] };
    case "search.ended":
      return { ...c, searchEnded: fact.reason };
    case "planner.stopped":
      return { ...c, stopped: { [fact.by]: fact.reason, ...c.stopped } };
    case "turn.requested":
      return { ...c, turns: asked(c.turns, fact) };
    case "turn.settled":
      return { ...c, turns: answered(c.turns, fact) };
    case "evidence.dropped":
    case "note.recorded":
      return c;
  }
}

/**
 * Nothing was decided on this answer yet, and no model was told of it: a crowning that is under way, and the screening of a shipped idea that is not settled. What is
 * settled stays settled (E1): a leader is measured afresh before it is crowned, whatever its screening said.
 */
function undecided(c: Campaign, entry: JobEntry | undefined): boolean {
  if (!entry) return false;
  const purpose = purposeOf(entry.spec);
  const x = find(c, entry.experiment);
  if (purpose === "crown" || purpose === "repeat") return !c.champions.some((won) => won.experimentId === entry.experiment);
  return purpose === "screen" && x !== undefined && x.id !== SEED && !x.implemented && x.settled === null;
}

export function find(c: Campaign, id: string): Experiment | undefined {
  return id === SEED ? c.seed : c.experiments.find((x) => x.id === id);
}

function update(c: Campaign, id: string, fact: CampaignFact, at: number): Campaign {
  if (id === SEED) return { ...c, seed: stepExperiment(c.seed, fact, at, null) };
  const bindings = (x: Experiment): Bindings | null => find(c, x.hypothesis.parent)?.bindings ?? null;
  return { ...c, experiments: c.experiments.map((x) => (x.id === id ? stepExperiment(x, fact, at, bindings(x)) : x)) };
}

/** Running time in ms at `now`, pauses left out. */
export function elapsedMs(c: Campaign, now: number): number {
  const until = c.ended?.at ?? now;
  return until - c.createdAt - c.pausedMs - (c.pausedAt ? until - c.pausedAt : 0);
}

export const leader = (c: Campaign): string => c.leaders.at(-1) ?? SEED;
export const champion = (c: Campaign): string => c.champions.at(-1)?.experimentId ?? SEED;

/** The built stack of an experiment, once its build has been answered. */
export function built(c: Campaign, id: string): BuiltStack | null {
  const x = find(c, id);
  return x?.git ? stackOf(x.git, x.provenance, jobOutcome(c, id, stepName(x, "build"))) : null;
}

/** Positions per second that a screening measured for this experiment's stack; null before any. */
export function measuredRate(c: Campaign, id: string): number | null {
  const screened = screening(c, id);
  return screened && positionRate(screened.workload, screened.challenger);
}

/** Seconds that a run of the parent took in this experiment's screening; null before any. */
export function championRunS(c: Campaign, id: string): number | null {
  const screened = screening(c, id);
  return screened && (screened.workload.requests * meanTokens(screened.workload.output)) / screened.champion;
}

/** Rates of both arms, output tokens per second, and on what; null before any, and where the metric is no such rate. */
function screening(c: Campaign, id: string): { workload: Workload; challenger: number; champion: number } | null {
  const entry = c.ledger[jobId(c, id, stepName(find(c, id), "screen"))];
  if (entry?.outcome?.status !== "measured" || entry.spec.kind !== "bench" || entry.spec.metric.unit !== "tok/s") return null;
  const { challenger, champion } = entry.outcome;
  return { workload: entry.spec.workload, challenger: challenger.value, champion: champion.value };
}

/** What should be happening now. Derived from the state alone, so a restart asks for exactly what was still missing. */
export function pending(c: Campaign): Effect[] {
  if (c.ended || c.pausedAt) return [];
  const stuck = Object.values(c.ledger).find((job) => job.status === "stuck");
  if (stuck) return pausing(stuck);
  if (!c.device) return [{ type: "bind", id: "bind" }];
  const seed = seedNeeds(c);
  if (seed) return seed;
  const open = c.experiments.filter((x) => !x.settled);
  if (open.length > 0) return open.flatMap((x) => carryOut(c, x));
  if (c.searchEnded === null) return [{ type: "plan", id: planId(c) }];
  return crowning(c) ?? versusBaselines(c) ?? ending(c);
}

/** Unlike any other of this campaign, and the same after a kill: also a member of a portfolio that stopped makes it another question. */
function planId(c: Campaign): string {
  const stopped = Object.keys(c.stopped).length;
  return `plan:${filedByPlaybook(c) ? 1 : 0}.${c.experiments.length}${stopped > 0 ? `s${stopped}` : ""}`;
}

/** The playbook's ideas go into the backlog first, once; what others file while the planner is asked must not ask it again. */
const filedByPlaybook = (c: Campaign): boolean => c.backlog.some((i) => i.filedBy === "playbook");

function pausing({ id, attempt, experiment, spec, devices, outcome }: JobEntry): Effect[] {
  const last = outcome?.status === "failed" ? `${outcome.failure.code} (${outcome.failure.attribution}): ${outcome.failure.message}` : "";
  const where = devices.length === 0 ? "" : ` on device ${devices.join(", ")}`;
  const reason = `${attempt} attempts at the ${spec.kind} of ${experiment} failed${where} for no fault of its own; the last: ${last}`;
  return append(`pause:${id}.${attempt}`, { type: "campaign.paused", reason });
}

function ending(c: Campaign): Effect[] {
  const trial = trialEnding(c);
  if (trial) return append("end", trial);
  const won = c.champions.at(-1)?.experimentId;
  const shown = won === undefined ? "no candidate was proven better than the seed" : `champion ${won} proven better than the one before it`;
  return end(won === undefined ? "not-proven" : "proven", `${shown}; search ended: ${c.searchEnded ?? ""}`);
}

const end = (outcome: "proven" | "not-proven" | "failed", reason: string): Effect[] =>
  append("end", { type: "campaign.ended", outcome, reason });

/** The seed is drafted, built and checked like a candidate before anything is compared with it. Null: done. */
function seedNeeds(c: Campaign): Effect[] | null {
  if (!c.seed.git) return [{ type: "draft", id: "draft:seed", experimentId: SEED }];
  const build = jobOutcome(c, SEED, "build");
  if (!build) return jobEffect(c, SEED, "build", buildSpec(c.seed.git, "shipped"));
  const stack = stackOf(c.seed.git, "shipped", build);
  if (!stack) return end("failed", `the seed does not build: ${build.status === "failed" ? build.failure.message : build.status}`);
  const check = jobOutcome(c, SEED, "check");
  if (!check) return jobEffect(c, SEED, "check", checkSpec(stack, c.target, "screen"));
  if (check.status === "checked" && check.report.ok) return null;
  const why = check.status === "failed" ? `${check.failure.attribution}: ${check.failure.message}` : "a gate failed";
  return end("failed", `the seed does not pass its check: ${why}`);
}

/** What an experiment is carried out with; also what its tools' calls are answered from. */
export function surroundings(c: Campaign, x: Experiment): Surroundings {
  const parent = built(c, x.hypothesis.parent);
  if (!parent) throw new Error(`experiment ${x.id}: its parent ${x.hypothesis.parent} has no build`);
  const workload: Workload = screeningWorkload(c.target.workload, c.target.slice, measuredRate(c, x.hypothesis.parent));
  const { id, target, ledger, turns } = c;
  const searchEnded = c.searchEnded ?? c.stopped[x.by] ?? null;
  const alone = leader(c) === x.hypothesis.parent || c.options.trial?.purpose === "matrix";
  const leading = alone ? null : built(c, leader(c));
  return { id, target, ledger, turns, searchEnded, parent, leader: leading, workload };
}

function carryOut(c: Campaign, x: Experiment): Effect[] {
  const needs = experimentNeeds(x, surroundings(c, x));
  const experimentId = x.id;
  switch (needs.want) {
    case "draft":
      return [{ type: "draft", id: `draft:${x.id}`, experimentId }];
    case "job":
      return jobEffect(c, x.id, needs.step, needs.spec);
    case "turn": {
      const { role, draft, n } = needs;
      return [{ type: "turn", id: `${role}:${x.id}.${draft}.${n}`, experimentId, role, draft, n }];
    }
    case "prepare":
      return [{ type: "prepare", id: `prepare:${x.id}.${needs.call.key}`, experimentId, call: needs.call }];
    case "conclude":
      return [{ type: "conclude", id: `conclude:${x.id}.${needs.call.key}`, experimentId, call: needs.call }];
    case "return":
      return append(`return:${x.id}.${x.draft}`, { type: "experiment.returned", experimentId, reason: needs.reason });
    case "settle":
      return append(`settle:${x.id}`, { type: "experiment.settled", experimentId, ...needs.settlement });
    case "nothing":
      return [];
  }
}

const append = (id: string, fact: CampaignFact): Effect[] => [{ type: "append", id, fact }];
