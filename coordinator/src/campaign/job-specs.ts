import type { Arm, BenchSpec, BuiltStack, CheckSpec, Git, JobSpec, Outcome, Provenance, Target, Workload } from "@vibeserve/shared";

type Sources = Pick<Git, "treeDigest" | "tree">;

/** The build of a tree as later jobs name it; null where it was not built. */
export function stackOf({ treeDigest, tree }: Sources, provenance: Provenance, built: Outcome | null): BuiltStack | null {
  if (built?.status !== "built") return null;
  const { buildDigest, output } = built;
  return { treeDigest, tree, buildDigest, provenance, ...(output ? { output } : {}) };
}

export function buildSpec({ treeDigest, tree }: Sources, provenance: Provenance): JobSpec {
  return { kind: "build", treeDigest, tree, provenance };
}

export function checkSpec(stack: BuiltStack, { model, accuracy }: Target, level: CheckSpec["level"]): JobSpec {
  return { kind: "check", stack, model, level, accuracy: accuracy.class };
}

/** A wrong step costs little, since the leader is measured again at 95 %, twice, before it is crowned. */
const STEP = { confidence: 0.9, runLimitMs: 120_000 };
const CLAIM = { confidence: 0.95, runLimitMs: 180_000 };

/** A comparison in the target's objective; of `arms` the first is the challenger. */
export function benchSpec(
  { model, objective: metric }: Target,
  purpose: "screen" | "quick" | "crown" | "repeat" | "baseline",
  [challenger, champion]: readonly [Arm, Arm],
  workload: Workload,
  pairs: BenchSpec["pairs"],
): BenchSpec {
  const limits = purpose === "screen" || purpose === "quick" ? STEP : CLAIM;
  return { kind: "bench", purpose, challenger, champion, model, workload, metric, pairs, ...limits };
}

export const builtArm = (role: Arm["role"], build: BuiltStack): Arm => ({ role, stack: { source: "build", build } });

/**
 * Beside the parent. screen: 2 to 4 pairs, since a step that shows nothing in four is not worth more device time; quick: two, enough to see a large effect, and it
 * decides nothing.
 */
export const besideParent = (
  purpose: "screen" | "quick",
  stack: BuiltStack,
  { target, parent, workload }: { target: Target; parent: BuiltStack; workload: Workload },
): BenchSpec =>
  benchSpec(target, purpose, [builtArm("challenger", stack), builtArm("champion", parent)], workload, {
    min: 2,
    max: purpose === "screen" ? 4 : 2,
  });
