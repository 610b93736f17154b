import type { BuildSpec } from "@vibeserve/shared";
import { buildStack, storeOutput, type BuildDeps } from "../build/build-stack.ts";
import type { JobContext, JobHandler } from "./job-context.ts";

/** What a build needs beside its job. */
export type BuilderDeps = Pick<BuildDeps, "compiler" | "cache" | "mask" | "farm">;

/** A job's context as a build's dependencies: also for check and bench, which need the build that they name. */
export function buildDepsOf(builder: BuilderDeps, ctx: JobContext): BuildDeps {
  return { ...builder, sandbox: ctx.sandbox, artifacts: ctx.artifacts, signal: ctx.signal, progress: (phase) => ctx.progress(phase) };
}

/** Job `build`: CPU only, sandboxed, cached by tree and toolchain; for this machine or another. */
export function buildHandler(builder: BuilderDeps): JobHandler<BuildSpec> {
  return async (job, ctx) => {
    const startedMs = performance.now();
    const { for: target } = job.spec;
    const built = await buildStack(buildDepsOf(builder, ctx), job.spec, target);
    ctx.log(`tree ${job.spec.treeDigest}: build ${built.buildDigest}${built.cached ? " (cached)" : ""}`);
    if (target) ctx.progress("storing the build");
    const output = target && (await storeOutput(ctx, built, target.arch));
    return {
      status: "built",
      buildDigest: built.buildDigest,
      cached: built.cached,
      seconds: (performance.now() - startedMs) / 1000,
      bytes: built.bytes,
      ...(output ? { output } : {}),
    };
  };
}
