import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { JobSpec } from "@vibeserve/shared";
import { runCheck } from "../accuracy/index.ts";
import { baselineHandler, type BaselineDeps } from "../baseline/baseline-job.ts";
import { baselinePython } from "../baseline/installed-engines.ts";
import { RECIPES } from "../baseline/recipe.ts";
import { benchHandler } from "../bench/bench-job.ts";
import { modelTools } from "../bench/model-tools.ts";
import { buildHandler, type BuilderDeps } from "./build.job.ts";
import { checkHandler, context, judged } from "./check.job.ts";
import { execHandler } from "./exec.job.ts";
import type { Evaluator } from "./evaluator.ts";
import type { JobHandler, JobHandlers } from "./job-context.ts";
import { JobError } from "./job-error.ts";
import { profileHandler, type ProfileJobDeps } from "./profile.job.ts";
import { startArm } from "./start-arm.ts";

export interface HandlerDeps {
  readonly builder: BuilderDeps;
  /** Nothing is judged here, so nothing is prepared for it. */
  readonly builderOnly: boolean;
  readonly evaluator: Evaluator;
  readonly cacheDir: string;
  /** The evaluator's private folder. */
  readonly evaluatorDir: string;
  readonly python: string | null;
  readonly peaks: ProfileJobDeps["peaks"];
}

/** The real handlers: each the work of its own folder, wired to this agent's builds, models, pools and baselines. */
export async function jobHandlers(deps: HandlerDeps): Promise<JobHandlers> {
  const { builder, evaluator } = deps;
  const workDir = join(deps.evaluatorDir, "work");
  await mkdir(workDir, { recursive: true, mode: 0o700 });
  // The filler rests during the whole of a device job, see quietly().
  const background = { pause: () => undefined, resume: () => undefined };
  const tools: BaselineDeps["modelTools"] = async (ref) => {
    const { tokenizer, reference } = await evaluator.model(ref);
    return modelTools(tokenizer, reference);
  };
  const baseline: BaselineDeps = {
    baselinesDir: RECIPES,
    cacheDir: deps.cacheDir,
    python: async () => pythonOf(deps.python),
    modelPath: async (ref) => (await evaluator.model(ref)).path,
    modelTools: tools,
    judge: async (stack, _recipe, ref, ctx) => {
      const model = await evaluator.model(ref);
      const pool = await evaluator.pool(ctx.lease.jobId, ref, "public");
      const { referenceOptions: reference, tokenizer } = model;
      const of = { pool, reference, tokenizer, features: null };
      return judged(() => runCheck({ ...context(ctx), socketPath: stack.socketPath, level: "public", accuracy: "lossy", ...of }));
    },
    workDir,
    background,
  };
  return {
    build: async (job, ctx) => {
      if (!deps.builderOnly) evaluator.prepare(job.campaign);
      return buildHandler(builder)(job, ctx);
    },
    check: quietly(evaluator, checkHandler(builder, evaluator)),
    bench: quietly(
      evaluator,
      benchHandler({
        startArm: (arm, spec, ctx) => startArm(builder, evaluator, baseline, arm, spec, ctx),
        modelTools: tools,
        workDir,
        background,
      }),
    ),
    baseline: quietly(evaluator, baselineHandler(baseline)),
    profile: quietly(evaluator, profileHandler({ builder, evaluator, workDir, peaks: deps.peaks })),
    exec: quietly(evaluator, execHandler(builder)),
  };
}

/** A device job has the machine alone: not even the hidden pool is filled. */
function quietly<S extends JobSpec>(evaluator: Evaluator, handler: JobHandler<S>): JobHandler<S> {
  return async (job, ctx) => {
    await evaluator.rest();
    try {
      return await handler(job, ctx);
    } finally {
      evaluator.wake();
    }
  };
}

function pythonOf(named: string | null): string {
  const path = baselinePython(named);
  if (path === null)
    throw new JobError("device", "no-python", "baselines need Python 3.9 or newer with pip: install it, or name it with --python");
  return path;
}
