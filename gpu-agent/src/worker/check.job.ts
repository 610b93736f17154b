import type { CheckReport, CheckSpec } from "@vibeserve/shared";
import type { z } from "zod";
import { ReferenceError, runCheck } from "../accuracy/index.ts";
import { ensureBuilt } from "../build/ensure-built.ts";
import type { RunningStack } from "../serve/running-stack.ts";
import { readManifest } from "../serve/start-stack.ts";
import { buildDepsOf, type BuilderDeps } from "./build.job.ts";
import type { Evaluator } from "./evaluator.ts";
import { sayOf, type JobHandler } from "./job-context.ts";
import { JobError } from "./job-error.ts";
import { startBuilt } from "./start-built.ts";

/** Job `check`: serves the very build that the job names and judges what it serves. A candidate that answers wrongly, or not, is a report that is not ok. */
export function checkHandler(builder: BuilderDeps, evaluator: Evaluator): JobHandler<CheckSpec> {
  return async (job, ctx) => {
    const startedMs = performance.now();
    const { spec } = job;
    const buildDir = await ensureBuilt(buildDepsOf(builder, ctx), spec.stack);
    const { features } = await readManifest(buildDir);
    const model = await evaluator.model(spec.model);
    const pool = await evaluator.pool(job.campaign, spec.model, spec.level === "public" ? "public" : "hidden");
    const serve = (modelPath: string): Promise<RunningStack> => startBuilt(ctx, { buildDir, modelPath, provenance: spec.stack.provenance });
    const stack = await serve(model.path);
    try {
      // Two processes of a candidate at once would halve each: the first one rests while the other is judged.
      const mutation =
        spec.level === "crown" ? { dir: await evaluator.mutationFolder(), serve: (path: string) => paused(stack, serve(path)) } : null;
      const report = await judged(() =>
        runCheck({
          signal: ctx.signal,
          onPhase: sayOf(ctx),
          socketPath: stack.socketPath,
          level: spec.level,
          accuracy: spec.accuracy,
          pool,
          reference: model.referenceOptions,
          tokenizer: model.tokenizer,
          features,
          cpuSeconds: () => stack.cpuSeconds(),
          ...(mutation ? { mutation } : {}),
        }),
      );
      const { warmupS } = stack;
      return { status: "checked", report, seconds: (performance.now() - startedMs) / 1000, ...(warmupS === undefined ? {} : { warmupS }) };
    } finally {
      await stack.stop();
    }
  };
}

type Report = z.infer<typeof CheckReport>;

/** The reference's failure is the harness's. */
export async function judged(check: () => Promise<Report>): Promise<Report> {
  try {
    return await check();
  } catch (error) {
    if (error instanceof ReferenceError) throw new JobError("harness", "reference", error.message);
    throw error;
  }
}

async function paused(first: RunningStack, starting: Promise<RunningStack>): Promise<RunningStack> {
  const second = await starting;
  await first.pause().catch(() => undefined);
  return second;
}
