import type { Arm, BenchSpec } from "@vibeserve/shared";
import { startBaselineArm, type BaselineDeps } from "../baseline/baseline-job.ts";
import type { BenchArm } from "../bench/arms.ts";
import { ensureBuilt } from "../build/ensure-built.ts";
import { buildDepsOf, type BuilderDeps } from "./build.job.ts";
import type { Evaluator } from "./evaluator.ts";
import type { JobContext } from "./job-context.ts";
import { startBuilt } from "./start-built.ts";

/** Starts one side of a comparison: the build that the job names, or an installed baseline. Throws StackError for what is the arm's own fault. */
export async function startArm(
  builder: BuilderDeps,
  evaluator: Evaluator,
  baseline: BaselineDeps,
  arm: Arm,
  spec: BenchSpec,
  ctx: JobContext,
): Promise<BenchArm> {
  if (arm.stack.source === "baseline") return startBaselineArm(baseline, arm.stack, spec, ctx);
  const { build } = arm.stack;
  const buildDir = await ensureBuilt(buildDepsOf(builder, ctx), build);
  const { path } = await evaluator.model(spec.model);
  const stack = await startBuilt(ctx, { buildDir, modelPath: path, provenance: build.provenance });
  return { role: arm.role, stack, dialect: "openai", treeDigest: build.treeDigest, buildDigest: build.buildDigest, engine: null };
}
