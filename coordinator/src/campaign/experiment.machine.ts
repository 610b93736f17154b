import type {
  ArtifactRef,
  Bindings,
  BuiltStack,
  CampaignFact,
  Comparison,
  Git,
  Hypothesis,
  JobSpec,
  Outcome,
  Provenance,
  Resolution,
  Target,
  Workload,
} from "@vibeserve/shared";
import type { Ledger } from "./ledger.ts";

/**
 * One hypothesis being carried out: drafting → building → checking → screening → settled. Invariants:
 * E1 a settled experiment never changes; E2 nothing is measured before its check passed; E3 only a comparison whose interval lies above 1
 * makes a leader; E4 a failure that is not the candidate's resolves to `blocked`, never against the idea.
 */
export interface Experiment {
  id: string;
  hypothesis: Hypothesis;
  git: Git | null;
  bindings: Bindings | null;
  provenance: Provenance;
  settled: Settlement | null;
  proposedAt: number;
  settledAt: number;
}

export interface Settlement {
  outcome: Resolution;
  reason: string;
  ratio: { point: number; lo: number; hi: number; pairs: number } | null;
  checkpoint: "leader" | "discard";
}

export type Step = "build" | "check" | "screen";

/** What the experiment waits for: a draft, a job (by step), a decision, or nothing more. */
export type Need =
  { want: "draft" } | { want: "job"; step: Step; spec: JobSpec } | { want: "settle"; settlement: Settlement } | { want: "nothing" };

export interface Surroundings {
  target: Target;
  ledger: Ledger;
  jobId: (experiment: string, step: string) => string;
  /** The tree that the challenger is compared with. */
  parent: BuiltStack;
  workload: Workload;
}

const discard = (outcome: Resolution, reason: string): Need => ({
  want: "settle",
  settlement: { outcome, reason, ratio: null, checkpoint: "discard" },
});

export function experimentNeeds(x: Experiment, s: Surroundings): Need {
  if (x.settled) return { want: "nothing" };
  if (!x.git) return { want: "draft" };

  const built = answer(s, x.id, "build");
  if (built === null) return { want: "job", step: "build", spec: buildSpec(x.git, x.provenance) };
  if (built.status === "failed") return failed("build", built);
  const stack = stackOf(x.git, x.provenance, built);
  if (!stack) return discard("blocked", `build answered "${built.status}"`);
  if (stack.buildDigest === s.parent.buildDigest) return discard("inconclusive", "its build is the parent's, byte for byte");

  const checked = answer(s, x.id, "check");
  if (checked === null) return { want: "job", step: "check", spec: checkSpec(stack, s.target, "screen") };
  if (checked.status === "failed") return failed("check", checked);
  if (checked.status !== "checked") return discard("blocked", `check answered "${checked.status}"`);
  if (!checked.report.ok) return discard("implementation_failed", `accuracy: ${failedGates(checked)}`);

  const screened = answer(s, x.id, "screen");
  if (screened === null) return { want: "job", step: "screen", spec: screenSpec(stack, s) };
  if (screened.status === "failed") return failed("screen", screened);
  if (screened.status !== "measured") return discard("blocked", `screen answered "${screened.status}"`);
  return { want: "settle", settlement: judge(screened.comparison) };
}

/** The rule that turns a screening comparison into a resolution; pure, and the same for every agent. */
export function judge(c: Comparison): Settlement {
  const ratio = { point: c.point, lo: c.lo, hi: c.hi, pairs: c.pairs };
  const shown = `${c.point.toFixed(3)}× [${c.lo.toFixed(3)}, ${c.hi.toFixed(3)}] over ${c.pairs} pairs`;
  if (c.lo > 1) return { outcome: "proven", reason: `faster than its parent: ${shown}`, ratio, checkpoint: "leader" };
  if (c.hi < 1) return { outcome: "disproven", reason: `slower than its parent: ${shown}`, ratio, checkpoint: "discard" };
  return { outcome: "inconclusive", reason: `no effect shown: ${shown}`, ratio, checkpoint: "discard" };
}

/** The accepted answer of a step's job, or null while there is none. */
export function answer(s: Pick<Surroundings, "ledger" | "jobId">, experiment: string, step: string): Outcome | null {
  const entry = s.ledger[s.jobId(experiment, step)];
  return entry?.status === "over" ? entry.outcome : null;
}

export function stackOf(git: Git, provenance: Provenance, built: Outcome | null): BuiltStack | null {
  return built?.status === "built" ? { treeDigest: git.treeDigest, tree: git.tree, buildDigest: built.buildDigest, provenance } : null;
}

export function buildSpec(git: { treeDigest: string; tree: ArtifactRef }, provenance: Provenance): JobSpec {
  return { kind: "build", treeDigest: git.treeDigest, tree: git.tree, provenance };
}

export function checkSpec(stack: BuiltStack, target: Target, level: "screen" | "crown"): JobSpec {
  return { kind: "check", stack, model: target.model, level, accuracy: target.accuracy.class };
}

/** 2 to 4 pairs at 90 %: a step that shows nothing in four is not worth more device time, and a wrong step costs little, since the leader is
 * measured again at 95 %, twice, before it is crowned. */
function screenSpec(stack: BuiltStack, s: Surroundings): JobSpec {
  return {
    kind: "bench",
    purpose: "screen",
    challenger: { role: "challenger", stack: { source: "build", build: stack } },
    champion: { role: "champion", stack: { source: "build", build: s.parent } },
    model: s.target.model,
    workload: s.workload,
    metric: s.target.objective,
    pairs: { min: 2, max: 4 },
    confidence: 0.9,
    runLimitMs: 120_000,
  };
}

function failed(step: Step, outcome: Extract<Outcome, { status: "failed" }>): Need {
  const { attribution, code, message } = outcome.failure;
  return discard(attribution === "candidate" ? "implementation_failed" : "blocked", `${step}: ${code} (${attribution}): ${message}`);
}

export function failedGates(checked: Extract<Outcome, { status: "checked" }>): string {
  const bad = checked.report.gates.filter((g) => !g.ok).map((g) => `${g.name} is ${g.value} ${g.unit}, must be ${g.limit}`);
  return bad.join("; ") || "the report is not ok but names no gate";
}

/** Folds the facts that concern one experiment. */
export function stepExperiment(x: Experiment, fact: CampaignFact, at: number): Experiment {
  if (x.settled) return x;
  if (fact.type === "experiment.drafted") return { ...x, git: fact.git, bindings: fact.bindings, provenance: fact.provenance };
  if (fact.type === "experiment.settled")
    return { ...x, settled: { outcome: fact.outcome, reason: fact.reason, ratio: fact.ratio, checkpoint: fact.checkpoint }, settledAt: at };
  return x;
}
