import type { BuiltStack, CampaignFact, Git, JobSpec, Outcome, TurnRole, Workload } from "@vibeserve/shared";
import type { Campaign } from "./campaign.machine.ts";
import { jobOutcome } from "./job-effect.ts";
import { besideParent, buildSpec, checkSpec, stackOf } from "./job-specs.ts";
import type { Turn } from "./turns.ts";

/**
 * A conversation of one model about one experiment, as the log tells it: turns, each with calls of tools, each answered before the next turn. What is next is
 * derived, so a coordinator that was killed goes on in the very call. Tools that only read or write the tree are worked out again from the turns themselves
 * (coordinator/src/agents/replay.ts) and leave no fact.
 */
export type SessionRole = Exclude<TurnRole, "planner">;

/** Tools that are jobs on the target's device, by the jobs that each takes, in order; the last one's outcome is the answer. */
export const JOB_TOOLS = {
  build: ["build"],
  check: ["build", "check"],
  bench_quick: ["build", "bench"],
  profile: ["build", "profile"],
  run: ["exec"],
} as const;
export type JobTool = keyof typeof JOB_TOOLS;
type JobStep = (typeof JOB_TOOLS)[JobTool][number];

/** The tool that ends a conversation. */
export const FINAL: Readonly<Record<SessionRole, string>> = { implementer: "submit", judge: "verdict", evaluator: "assess" };
/** A conversation that came to no end by then won't: a good experiment takes 10 to 30 turns, a review three. */
export const MAX_TURNS: Readonly<Record<SessionRole, number>> = { implementer: 60, judge: 12, evaluator: 12 };

/** What a tool call works on; `problem` is the answer where it can't be carried out. */
export type Prepared = Pick<Extract<CampaignFact, { type: "call.prepared" }>, "git" | "argv" | "problem">;

/** Which call of which conversation. draft: the hand-in that a judge or evaluator looks at, 0 for the implementer. n and index from 1. */
export interface CallAt {
  role: SessionRole;
  draft: number;
  n: number;
  index: number;
  tool: string;
  /** Unique within the experiment; part of its jobs' ids. */
  key: string;
}

export type SessionNeed =
  | { want: "turn"; role: SessionRole; draft: number; n: number }
  | { want: "prepare"; call: CallAt }
  | { want: "conclude"; call: CallAt }
  | { want: "job"; step: string; spec: JobSpec }
  | { want: "exhausted"; turns: number };

/** What a conversation's jobs are made of and answered from. */
export interface JobSources extends Pick<Campaign, "id" | "target" | "ledger"> {
  /** The tree that the challenger is compared with. */
  parent: BuiltStack;
  workload: Workload;
}

export interface SessionState extends JobSources, Pick<Campaign, "turns"> {
  experiment: string;
  calls: Readonly<Record<string, Prepared>>;
  /** Calls of `submit` that were answered: what was handed in came back. */
  returned: readonly string[];
}

export const callKey = (role: SessionRole, draft: number, n: number, index: number): string =>
  `${role === "implementer" ? "" : `${role}${draft}-`}t${n}c${index}`;

/** The turns of one conversation that were said, oldest first. */
export function saidTurns(turns: readonly Turn[], experiment: string, role: SessionRole, draft: number): Turn[] {
  return turns.filter((t) => t.role === role && t.of?.experimentId === experiment && t.of.draft === draft && t.outcome?.status === "said");
}

export function sessionNeeds(s: SessionState, role: SessionRole, draft: number): SessionNeed {
  const said = saidTurns(s.turns, s.experiment, role, draft);
  const last = said.at(-1);
  const n = said.length;
  for (const call of callsOf(last, role, draft, n)) {
    const need = callNeeds(s, call);
    if (need) return need;
    if (call.tool === FINAL[role]) break;
  }
  return n >= MAX_TURNS[role] ? { want: "exhausted", turns: n } : { want: "turn", role, draft, n: n + 1 };
}

/** The calls of a turn. */
export function callsOf(turn: Turn | undefined, role: SessionRole, draft: number, n: number): CallAt[] {
  if (turn?.outcome?.status !== "said") return [];
  return turn.outcome.calls.map(({ tool }, i) => ({ role, draft, n, index: i + 1, tool, key: callKey(role, draft, n, i + 1) }));
}

/** Null: the call is answered, or is answered without a fact. */
function callNeeds(s: SessionState, call: CallAt): SessionNeed | null {
  const prepared = s.calls[call.key];
  if (call.tool === FINAL[call.role])
    return (prepared && prepared.problem !== null) || s.returned.includes(call.key) ? null : { want: "conclude", call };
  if (call.role !== "implementer" || !isJobTool(call.tool)) return null;
  if (!prepared) return { want: "prepare", call };
  const next = jobCall(s, s.experiment, call.key, call.tool, prepared);
  return next.kind === "job" ? { want: "job", step: next.step, spec: next.spec } : null;
}

export const isJobTool = (tool: string): tool is JobTool => Object.hasOwn(JOB_TOOLS, tool);

export type JobCall =
  { kind: "job"; step: string; spec: JobSpec } | { kind: "answered"; outcome: Outcome } | { kind: "problem"; problem: string };

/** Where a job tool's call stands: its next job, or its answer, which is the last job's outcome, or the first that failed. */
export function jobCall(s: JobSources, experiment: string, key: string, tool: JobTool, { git, argv, problem }: Prepared): JobCall {
  if (problem !== null || !git) return { kind: "problem", problem: problem ?? "nothing to work on" };
  let outcome: Outcome | null = null;
  let stack: BuiltStack | null = null;
  for (const kind of JOB_TOOLS[tool]) {
    const step = `${key}-${kind}`;
    outcome = jobOutcome(s, experiment, step);
    if (outcome === null) return { kind: "job", step, spec: specOf(s, kind, git, stack, argv ?? []) };
    stack = stackOf(git, "model", outcome);
    // Failed, or the last one's.
    if (stack === null) break;
  }
  if (outcome === null) throw new Error(`tool ${tool} has no job`);
  return { kind: "answered", outcome };
}

/** Longest time of one command of the `run` tool. */
const RUN_MS = 60_000;

function specOf(s: JobSources, kind: JobStep, git: Git, stack: BuiltStack | null, argv: readonly string[]): JobSpec {
  const { treeDigest, tree } = git;
  if (kind === "build") return buildSpec(git, "model");
  if (kind === "exec") return { kind, treeDigest, tree, provenance: "model", argv: [...argv], limitMs: RUN_MS };
  if (!stack) throw new Error(`${kind} without a build`);
  if (kind === "check") return checkSpec(stack, s.target, "public");
  return kind === "bench" ? besideParent("quick", stack, s) : { kind, stack, model: s.target.model, workload: s.workload };
}
