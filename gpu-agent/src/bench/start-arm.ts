import { startBaselineArm, type BaselineDeps } from "../baseline/baseline-job.ts";
import type { BuildDeps } from "../build/build-stack.ts";
import { ensureBuilt } from "../build/ensure-built.ts";
import { startStack } from "../serve/start-stack.ts";
import type { JobContext } from "../worker/job-context.ts";
import type { BenchJobDeps, ModelRef } from "./bench-job.ts";

export interface ArmDeps {
  buildDeps(ctx: JobContext): BuildDeps;
  modelPath(model: ModelRef): Promise<string>;
  readonly baselines: BaselineDeps;
}

/** From the start of the process to its first answer: the seed dequantises 135 M weights in seconds, on a busy machine in tens of them. */
const HEALTH_TIMEOUT_MS = 60_000;

/** How a bench job starts an arm: the very build that the job names, or an installed engine's setting; both in the sandbox, on the device's processors. */
export function armStarter(deps: ArmDeps): BenchJobDeps["startArm"] {
  return async (arm, spec, ctx) => {
    if (arm.stack.source === "baseline") return { ...(await startBaselineArm(deps.baselines, arm.stack, spec, ctx)), role: arm.role };
    const { build } = arm.stack;
    const buildDir = await ensureBuilt(deps.buildDeps(ctx), build);
    const stack = await startStack(
      { sandbox: ctx.sandbox },
      {
        buildDir,
        modelPath: await deps.modelPath(spec.model),
        cpus: ctx.device.cpus,
        healthTimeoutMs: HEALTH_TIMEOUT_MS,
        provenance: build.provenance,
        signal: ctx.signal,
      },
    );
    return { role: arm.role, stack, dialect: "openai", treeDigest: build.treeDigest, buildDigest: build.buildDigest, engine: null };
  };
}
