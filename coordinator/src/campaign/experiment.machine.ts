import {
  ratioOf,
  type AgentKind,
  type Bindings,
  type BuiltStack,
  type CampaignFact,
  type ChampionRef,
  type Comparison,
  type Declaration,
  type Git,
  type Hypothesis,
  type JobSpec,
  type Outcome,
  type Provenance,
  type Resolution,
  type Review,
} from "@vibeserve/shared";
import type { Campaign } from "./campaign.machine.ts";
import { jobOutcome } from "./job-effect.ts";
import { besideParent, buildSpec, checkSpec, stackOf } from "./job-specs.ts";
import { sessionNeeds, type JobSources, type Prepared, type SessionNeed, type SessionRole } from "./session.ts";

/**
 * One hypothesis being carried out: drafting → building → checking → reviewing → screening → evaluating → settled; reviewing and evaluating only where a model
 * wrote the code, and then what fails for its own reasons goes back to drafting, MAX_RETURNS times. Invariants:
 * E1 a settled experiment never changes; E2 nothing is measured before its check passed; E3 only a comparison whose interval lies above 1
 * makes a leader, with the parent and, where that is another, with the leader before it; E4 a failure that is not the candidate's resolves to `blocked`, never against the idea; E5 a judge sees only what passed its check, and its
 * veto can't be outvoted; E6 an idea is abandoned only with a mechanism that a second judge found sound.
 */
export interface Experiment {
  id: string;
  hypothesis: Hypothesis;
  git: Git | null;
  bindings: Bindings | null;
  /** Whose planner and models. */
  by: AgentKind;
  /** Of its code, its ancestors' included. */
  provenance: Provenance;
  /** A model writes its code; else shipped bindings are bound. */
  implemented: boolean;
  /** The champion of another campaign that it tries here. */
  portOf: ChampionRef | null;
  /** Hand-ins so far. */
  draft: number;
  calls: Readonly<Record<string, Prepared>>;
  declaration: { call: string; declaration: Declaration } | null;
  /** Hand-ins that came back, by the call that handed them in. */
  returned: readonly { call: string; reason: string }[];
  reviews: readonly { draft: number; of: "candidate" | "abandonment"; review: Review }[];
  evaluated: boolean;
  settled: Settlement | null;
  proposedAt: number;
  settledAt: number;
}

export type Settlement = Omit<Extract<CampaignFact, { type: "experiment.settled" }>, "type" | "experimentId">;

export type Step = "build" | "check" | "screen" | "profile" | "lead";

/** Hand-ins that may come back to the implementer before the experiment has failed. */
export const MAX_RETURNS = 3;

/** A fresh experiment. parent: the experiment that it builds on, if that is not the seed's own. */
export function fresh(
  id: string,
  hypothesis: Hypothesis,
  { implemented, by }: { implemented: boolean; by: AgentKind },
  parent: Experiment | undefined,
  at: number,
): Experiment {
  return {
    id,
    hypothesis,
    by,
    git: null,
    bindings: null,
    provenance: implemented || parent?.provenance === "model" ? "model" : "shipped",
    implemented,
    portOf: null,
    draft: 0,
    calls: {},
    declaration: null,
    returned: [],
    reviews: [],
    evaluated: false,
    settled: null,
    proposedAt: at,
    settledAt: 0,
  };
}

/** What the experiment waits for: a draft, a job (by step), a decision, or nothing more. */
export type Need =
  | { want: "draft" }
  | { want: "job"; step: string; spec: JobSpec }
  | Extract<SessionNeed, { want: "turn" | "prepare" | "conclude" }>
  | { want: "return"; reason: string }
  | { want: "settle"; settlement: Settlement }
  | { want: "nothing" };

export interface Surroundings extends JobSources, Pick<Campaign, "turns"> {
  /** The leader's, where that is another; null: the parent leads. */
  leader: BuiltStack | null;
  /** Why no model is to be asked any more; null: go on. */
  searchEnded: string | null;
}

const discard = (outcome: Resolution, reason: string, strategy?: "parked" | "abandoned"): Need => ({
  want: "settle",
  settlement: { outcome, reason: reason.slice(0, 4_000), ratio: null, checkpoint: "discard", ...(strategy ? { strategy } : {}) },
});

export function experimentNeeds(x: Experiment, s: Surroundings): Need {
  if (x.settled) return { want: "nothing" };
  if (x.declaration && x.declaration.declaration.declared !== "ready") return givenUp(x, s, x.declaration.declaration);
  if (!x.git) return x.implemented ? implementing(x, s) : { want: "draft" };

  const [build, check, screen, profile] = (["build", "check", "screen", "profile"] as const).map((step) => stepName(x, step)) as Four;
  const built = jobOutcome(s, x.id, build);
  if (built === null) return { want: "job", step: build, spec: buildSpec(x.git, x.provenance) };
  if (built.status === "failed") return failed(x, "build", built);
  const stack = stackOf(x.git, x.provenance, built);
  if (!stack) return discard("blocked", `build answered "${built.status}"`);
  if (stack.buildDigest === s.parent.buildDigest) return own(x, "inconclusive", "its build is the parent's, byte for byte");

  const checked = jobOutcome(s, x.id, check);
  if (checked === null) return { want: "job", step: check, spec: checkSpec(stack, s.target, "screen") };
  if (checked.status === "failed") return failed(x, "check", checked);
  if (checked.status !== "checked") return discard("blocked", `check answered "${checked.status}"`);
  if (!checked.report.ok) return own(x, "implementation_failed", `accuracy: ${failedGates(checked)}`);

  if (x.implemented) {
    const review = reviewOf(x, "candidate", x.draft);
    if (!review) return conversation(x, s, "judge", x.draft, (why) => discard("blocked", `not reviewed: ${why}`));
    if (review.verdict === "veto") return own(x, "implementation_failed", `vetoed: ${review.reason}${pointers(review)}`);
  }

  const screened = jobOutcome(s, x.id, screen);
  if (screened === null) return { want: "job", step: screen, spec: besideParent("screen", stack, s) };
  if (screened.status === "failed") return failed(x, "screen", screened);
  if (screened.status !== "measured") return discard("blocked", `screen answered "${screened.status}"`);
  const settle = (): Need => settling(x, s, stack, judge(screened.comparison));
  if (!x.implemented || x.evaluated) return settle();
  // A profile that fails leaves the evaluator without one.
  if (jobOutcome(s, x.id, profile) === null)
    return { want: "job", step: profile, spec: { kind: "profile", stack, model: s.target.model, workload: s.workload } };
  return conversation(x, s, "evaluator", x.draft, settle);
}

/** What was faster than an older checkpoint leads only if it is faster than the leader too: ratios over different parents rank nothing. */
function settling(x: Experiment, s: Surroundings, stack: BuiltStack, settlement: Settlement): Need {
  if (settlement.checkpoint !== "leader" || s.leader === null) return { want: "settle", settlement };
  const step = stepName(x, "lead");
  const beside = jobOutcome(s, x.id, step);
  if (beside === null) return { want: "job", step, spec: besideParent("screen", stack, { ...s, parent: s.leader }) };
  const lead = beside.status === "measured" ? judge(beside.comparison) : null;
  const shown = lead?.reason.replace("its parent", "the leader") ?? `not compared with the leader: ${beside.status}`;
  const reason = `${settlement.reason}; ${shown}`;
  return { want: "settle", settlement: { ...settlement, reason, checkpoint: lead?.checkpoint ?? "discard" } };
}

type Four = [string, string, string, string];

/** A later hand-in has jobs of its own. */
export const stepName = (x: Pick<Experiment, "draft"> | undefined, step: Step): string =>
  x !== undefined && x.draft > 1 ? `${step}-${x.draft}` : step;

const implementing = (x: Experiment, s: Surroundings): Need =>
  conversation(x, s, "implementer", 0, (why) => discard(s.searchEnded === null ? "implementation_failed" : "blocked", why, "parked"));

/** The next step of a conversation; `otherwise` where it came to no end, with the reason. */
function conversation(x: Experiment, s: Surroundings, role: SessionRole, draft: number, otherwise: (why: string) => Need): Need {
  const state = { ...s, experiment: x.id, calls: x.calls, returned: x.returned.map((r) => r.call) };
  const need = sessionNeeds(state, role, draft);
  if (need.want === "exhausted") return otherwise(`the ${role} came to no end in ${need.turns} turns`);
  return need.want === "turn" && s.searchEnded !== null ? otherwise(`the search ended: ${s.searchEnded}`) : need;
}

/** Five axes apart: what the implementer declares decides the strategy, not whether the idea is true. */
function givenUp(x: Experiment, s: Surroundings, d: Declaration): Need {
  const failed = (why: string, strategy: "parked" | "abandoned") => discard("implementation_failed", why, strategy);
  if (d.declared !== "unsuitable")
    return failed(`needs debugging: ${d.summary}${d.nextStep === "" ? "" : `; next: ${d.nextStep}`}`, "parked");
  if (d.mechanism.trim() === "") return failed(`declared unsuitable without a mechanism: ${d.summary}`, "parked");
  const draft = x.draft + 1;
  const review = reviewOf(x, "abandonment", draft);
  if (!review) return conversation(x, s, "judge", draft, (why) => failed(`declared unsuitable, not reviewed: ${why}`, "parked"));
  return review.verdict === "pass"
    ? failed(`can't work: ${d.mechanism}`, "abandoned")
    : failed(`declared unsuitable, but the judge did not agree: ${review.reason}`, "parked");
}

export const reviewOf = (x: Experiment, of: "candidate" | "abandonment", draft: number): Review | null =>
  x.reviews.find((r) => r.of === of && r.draft === draft)?.review ?? null;

const pointers = ({ findings }: Review): string => findings.map((f) => `; ${f.path}:${f.line}: ${f.claim}`).join("");

/** A failure of the candidate's own: its implementer may mend it, if a model wrote it. */
function own(x: Experiment, outcome: Resolution, reason: string): Need {
  if (x.implemented && x.returned.length < MAX_RETURNS) return { want: "return", reason };
  return discard(outcome, reason);
}

/** The rule that turns a screening comparison into a resolution; pure, and the same for every agent. */
export function judge(c: Comparison): Settlement {
  const ratio = ratioOf(c);
  const shown = `${c.point.toFixed(3)}× [${c.lo.toFixed(3)}, ${c.hi.toFixed(3)}] over ${c.pairs} pairs`;
  if (c.lo > 1) return { outcome: "proven", reason: `faster than its parent: ${shown}`, ratio, checkpoint: "leader" };
  if (c.hi < 1) return { outcome: "disproven", reason: `slower than its parent: ${shown}`, ratio, checkpoint: "discard" };
  return { outcome: "inconclusive", reason: `no effect shown: ${shown}`, ratio, checkpoint: "discard" };
}

function failed(x: Experiment, step: Step, outcome: Extract<Outcome, { status: "failed" }>): Need {
  const { attribution, code, message } = outcome.failure;
  const reason = `${step}: ${code} (${attribution}): ${message}`;
  return attribution === "candidate" ? own(x, "implementation_failed", reason) : discard("blocked", reason);
}

export function failedGates(checked: Extract<Outcome, { status: "checked" }>): string {
  const bad = checked.report.gates.filter((g) => !g.ok).map((g) => `${g.name} is ${g.value} ${g.unit}, must be ${g.limit}`);
  return bad.join("; ") || "the report is not ok but names no gate";
}

/** Folds the facts that concern one experiment. bindings: its parent's, which a model's tree keeps in name. */
export function stepExperiment(x: Experiment, fact: CampaignFact, at: number, bindings: Bindings | null): Experiment {
  if (x.settled) return x;
  switch (fact.type) {
    case "experiment.drafted":
      return { ...x, git: fact.git, bindings: fact.bindings, provenance: fact.provenance };
    case "call.prepared": {
      const { call, git, argv, problem } = fact;
      return call in x.calls ? x : { ...x, calls: { ...x.calls, [call]: { git, argv, problem } } };
    }
    case "experiment.declared": {
      if (x.declaration) return x;
      const { call, declaration } = fact;
      const handedIn = { ...x, declaration: { call, declaration } };
      return declaration.declared === "ready" ? { ...handedIn, git: x.calls[call]?.git ?? null, bindings, draft: x.draft + 1 } : handedIn;
    }
    case "experiment.returned":
      if (!x.declaration) return x;
      return { ...x, git: null, declaration: null, returned: [...x.returned, { call: x.declaration.call, reason: fact.reason }] };
    case "review.recorded":
      if (reviewOf(x, fact.of, fact.draft)) return x;
      return { ...x, reviews: [...x.reviews, { draft: fact.draft, of: fact.of, review: fact.review }] };
    case "evaluation.recorded":
      return { ...x, evaluated: true };
    case "experiment.settled": {
      const { outcome, reason, ratio, checkpoint, strategy } = fact;
      return { ...x, settled: { outcome, reason, ratio, checkpoint, ...(strategy ? { strategy } : {}) }, settledAt: at };
    }
    default:
      return x;
  }
}
