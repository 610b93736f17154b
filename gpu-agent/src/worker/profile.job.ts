import type { ProfileSpec, Roofline } from "@vibeserve/shared";
import { modelTools } from "../bench/model-tools.ts";
import { ensureBuilt } from "../build/ensure-built.ts";
import type { Adapters } from "../device/adapter.ts";
import type { Peaks } from "../probe/peaks.ts";
import { shapeOfFile } from "../profile/model-shape.ts";
import { profileStack } from "../profile/profile-stack.ts";
import { rooflineOf } from "../profile/roofline.ts";
import { findTool } from "../sandbox/probe-sandbox.ts";
import { buildDepsOf, type BuilderDeps } from "./build.job.ts";
import type { Evaluator } from "./evaluator.ts";
import { sayOf, type JobHandler } from "./job-context.ts";
import { HEALTH_TIMEOUT_MS, startBuilt } from "./start-built.ts";

export interface ProfileJobDeps {
  readonly builder: BuilderDeps;
  readonly evaluator: Evaluator;
  /** Private to the agent. */
  readonly workDir: string;
  /** Measures the device's peaks anew; null where it can't. */
  readonly peaks: () => Promise<Peaks | null>;
  readonly adapters: Adapters;
}

/** Under emulation a stack of 98 MB of weights needs 16 s to load; under ncu each kernel of a start costs milliseconds. */
const UNDER_EMULATION_MS = 5 * HEALTH_TIMEOUT_MS;

/**
 * Job `profile`: where the time of the build goes under the workload, and what the device could do at the most. The peaks are measured again first: at
 * enrolment the machine may have been busy, while a device job has it alone.
 */
export function profileHandler(deps: ProfileJobDeps): JobHandler<ProfileSpec> {
  return async (job, ctx) => {
    const startedMs = performance.now();
    const { spec } = job;
    const buildDir = await ensureBuilt(buildDepsOf(deps.builder, ctx), spec.stack);
    const { path, tokenizer, reference } = await deps.evaluator.model(spec.model);
    const profile = await profileStack(spec.workload, {
      start: (more) =>
        startBuilt(ctx, {
          ...more,
          buildDir,
          modelPath: path,
          healthTimeoutMs: more.under ? UNDER_EMULATION_MS : HEALTH_TIMEOUT_MS,
          provenance: spec.stack.provenance,
        }),
      tools: modelTools(tokenizer, reference),
      sandbox: ctx.sandbox,
      buildDir,
      device: ctx.device,
      workDir: deps.workDir,
      signal: ctx.signal,
      progress: sayOf(ctx),
      perf: findTool("perf"),
      valgrind: findTool("valgrind"),
      ncu: deps.adapters[ctx.device.kind].kernelProfiler(),
    });
    const shape = shapeOfFile(path);
    // The processors' peaks bound nothing on an accelerator.
    const known = shape !== null && ctx.device.kind === "cpu";
    const peaks = known ? ((await deps.peaks()) ?? ctx.device.peaks ?? null) : null;
    const roofline: Roofline | null = shape === null || peaks === null ? null : rooflineOf(shape, spec.workload, peaks);
    return { status: "profiled", profile, roofline, seconds: (performance.now() - startedMs) / 1000 };
  };
}
