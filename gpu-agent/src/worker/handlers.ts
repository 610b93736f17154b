import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { onProcessors, type JobSpec } from "@vibeserve/shared";
import { runCheck } from "../accuracy/index.ts";
import { baselineHandler, type BaselineDeps } from "../baseline/baseline-job.ts";
import { RECIPES } from "../baseline/recipe.ts";
import { benchHandler } from "../bench/bench-job.ts";
import { modelTools } from "../bench/model-tools.ts";
import { guardDevices, troubleOf, type Trouble } from "../device/guard.ts";
import { withDevices } from "../sandbox/device-nodes.ts";
import type { Adapters } from "../device/adapter.ts";
import type { Alone } from "./alone.ts";
import { buildHandler, type BuilderDeps } from "./build.job.ts";
import { checkHandler, judged } from "./check.job.ts";
import { execHandler } from "./exec.job.ts";
import type { Evaluator } from "./evaluator.ts";
import { sayOf, type JobContext, type JobHandler, type JobHandlers } from "./job-context.ts";
import { JobError } from "./job-error.ts";
import { profileHandler, type ProfileJobDeps } from "./profile.job.ts";
import { startArm } from "./start-arm.ts";

export interface HandlerDeps {
  readonly builder: BuilderDeps;
  /** Nothing is judged here, so nothing is prepared for it. */
  readonly builderOnly: boolean;
  readonly evaluator: Evaluator;
  readonly alone: Alone;
  readonly cacheDir: string;
  /** The evaluator's private folder. */
  readonly evaluatorDir: string;
  /** Of baselines; null: there is none. */
  readonly python: string | null;
  readonly peaks: ProfileJobDeps["peaks"];
  readonly adapters: Adapters;
  /** The device is not on this machine any more. */
  readonly deviceGone: (deviceId: string) => void;
}

/** The real handlers: each the work of its own folder, wired to this agent's builds, models, pools and baselines. */
export async function jobHandlers(deps: HandlerDeps): Promise<JobHandlers> {
  const { builder, evaluator } = deps;
  /** Not even the hidden pool is filled beside a device job; a build takes it along. */
  const alone = <S extends JobSpec>(handler: JobHandler<S>): JobHandler<S> => {
    return async (job, ctx) => {
      const release = onProcessors(ctx.device) ? null : evaluator.hold();
      try {
        await evaluator.rest();
        return await deps.alone.job(job, ctx, async () => {
          using guard = ctx.devices.length > 1 ? guardDevices(deps.adapters, ctx.devices) : null;
          const signal = guard ? AbortSignal.any([ctx.signal, guard.signal]) : ctx.signal;
          try {
            return await handler(job, { ...ctx, signal, sandbox: sandboxOf(ctx) });
          } catch (error) {
            throw (await confession(deps, ctx, guard?.found ?? null)) ?? error;
          } finally {
            await evaluator.rest();
          }
        });
      } finally {
        release?.();
        evaluator.wake();
      }
    };
  };
  const workDir = join(deps.evaluatorDir, "work");
  await mkdir(workDir, { recursive: true, mode: 0o700 });
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
      return judged(() =>
        runCheck({ signal: ctx.signal, onPhase: sayOf(ctx), socketPath: stack.socketPath, level: "public", accuracy: "lossy", ...of }),
      );
    },
    workDir,
    yieldDevice: (signal) => evaluator.yieldDevice(signal),
  };
  return {
    build: alone((job, ctx) => {
      if (!deps.builderOnly) evaluator.prepare(job.campaign);
      return buildHandler(builder)(job, ctx);
    }),
    check: alone(checkHandler(builder, evaluator)),
    bench: alone(
      benchHandler({
        startArm: (arm, spec, ctx) => startArm(builder, evaluator, baseline, arm, spec, ctx),
        modelTools: tools,
        workDir,
        adapters: deps.adapters,
      }),
    ),
    baseline: alone(builder.mask ? refuseBaseline : baselineHandler(baseline)),
    profile: alone(profileHandler({ builder, evaluator, workDir, peaks: deps.peaks, adapters: deps.adapters })),
    exec: alone(execHandler(builder)),
  };
}

/** What an accelerator says against itself once a job on it has failed, or said while it ran: then the failure is the device's, whatever it looked like. Null: nothing. */
async function confession(
  { adapters, deviceGone }: HandlerDeps,
  { device, devices, signal }: JobContext,
  found: Trouble | null,
): Promise<JobError | null> {
  if (device.kind === "cpu" || signal.aborted) return null;
  const trouble = found ?? (await troubleOf(adapters, devices));
  for (const { id } of trouble?.gone ?? []) deviceGone(id);
  return trouble?.error ?? null;
}

/** The sandbox with the device files of this job's accelerators, and of no other. */
function sandboxOf({ devices, sandbox }: JobContext): JobContext["sandbox"] {
  try {
    return withDevices(sandbox, devices);
  } catch (error) {
    throw new JobError("device", "no-device-files", error instanceof Error ? error.message : String(error));
  }
}

function pythonOf(path: string | null): string {
  if (path === null)
    throw new JobError("device", "no-python", "baselines need Python 3.9 or newer with pip: install it, or name it with --python");
  return path;
}

/** Engines choose their kernels by CPUID, which no mask changes: their figures would be the whole machine's. */
function refuseBaseline(): never {
  throw new JobError("device", "masked", "this agent is masked to a level of instructions, to which no engine can be held");
}
