import type { Arm, BenchSpec, Device, Measurement } from "@vibeserve/shared";
import type { Adapters, DeviceAdapter } from "../device/adapter.ts";
import { troubleOf } from "../device/guard.ts";
import { tempFolder } from "../process/temp-folder.ts";
import { sayOf, type JobContext, type JobHandler } from "../worker/job-context.ts";
import { JobError } from "../worker/job-error.ts";
import { StackError } from "../serve/running-stack.ts";
import type { BenchArm, Side } from "./arms.ts";
import type { QuietLimits } from "./quiet.ts";
import type { Judge } from "./probe.ts";
import type { UnsignedMeasurement } from "./measured.ts";
import { runBench, type Sensors } from "./run-bench.ts";
import type { DrawPrompt } from "./workload.ts";

export type ModelRef = BenchSpec["model"];

/** What the evaluator knows of a model. */
export interface ModelTools {
  readonly drawPrompt: DrawPrompt;
  readonly decode: (ids: readonly number[]) => string;
  readonly judge: Judge;
}

export interface BenchJobDeps {
  /** Starts a build, or a baseline's server, in the sandbox. Throws StackError for what is the arm's own fault. */
  startArm(arm: Arm, spec: BenchSpec, ctx: JobContext): Promise<BenchArm>;
  modelTools(model: ModelRef, ctx: JobContext): Promise<ModelTools>;
  /** Folder of the agent that no candidate can see. */
  readonly workDir: string;
  /** Default limitsFor(device). */
  readonly limits?: QuietLimits;
  /** Absent: no device has sensors. */
  readonly adapters?: Adapters;
}

/** Job `bench`: starts both arms, compares them on this lease, stores the samples, signs both measurements. Stops both arms whatever happens. */
export function benchHandler(deps: BenchJobDeps): JobHandler<BenchSpec> {
  return async (job, ctx) => {
    const { spec } = job;
    const startedAt = performance.now();
    await using temporary = await tempFolder("bench-", deps.workDir);
    const started: BenchArm[] = [];
    const { device, devices } = ctx;
    const { adapters } = deps;
    try {
      if (adapters) await refuseUnhealthy(adapters, ctx);
      const tools = await deps.modelTools(spec.model, ctx);
      const start = async (side: Side): Promise<BenchArm> => {
        ctx.progress(`starting ${side}`);
        const arm = await deps.startArm(spec[side], spec, ctx).catch((error: unknown) => rethrow(error, side, spec[side]));
        started.push(arm);
        return arm;
      };
      const arms = { challenger: await start("challenger"), champion: await start("champion") };
      const result = await runBench(spec, arms, {
        device,
        leaseToken: ctx.lease.token,
        tools: ctx.tools,
        ...(adapters ? { sensors: devices.map((d) => sensorsOf(adapters[d.kind], d)) } : {}),
        ...tools,
        ...(deps.limits ? { limits: deps.limits } : {}),
        workDir: temporary.path,
        signal: ctx.signal,
        progress: sayOf(ctx),
      });
      const stored = await ctx.artifacts.put(result.samples.bytes);
      if (stored.digest !== result.samples.ref.digest) throw new Error(`the samples were stored as ${stored.digest}`);
      const sign = (m: UnsignedMeasurement): Measurement => ({ ...m, sig: ctx.sign(m) });
      const warm = started.flatMap(({ stack }) => stack.warmupS ?? []);
      return {
        status: "measured",
        comparison: result.comparison,
        challenger: sign(result.challenger),
        champion: sign(result.champion),
        seconds: (performance.now() - startedAt) / 1000,
        ...(warm.length === 0 ? {} : { warmupS: warm.reduce((a, b) => a + b) }),
      };
    } finally {
      await Promise.all(started.map((arm) => arm.stack.stop()));
    }
  };
}

const sensorsOf = (adapter: DeviceAdapter, device: Device): Sensors => ({
  id: device.id,
  sample: () => adapter.sample(device),
  quiesce: (own, withinMs, signal) => adapter.quiesce(device, own, withinMs, signal),
});

/** A device that says itself that it is broken is not measured on: what it would give is nobody's. */
async function refuseUnhealthy(adapters: Adapters, ctx: JobContext): Promise<void> {
  const trouble = await troubleOf(adapters, ctx.devices, (fact) => ctx.log(`device: ${fact}`));
  if (trouble) throw trouble.error;
}

/** An arm that does not come up is the challenger's own failure, but never that of the challenger where it is the other one. */
function rethrow(error: unknown, side: Side, arm: Arm): never {
  if (side === "challenger" || !(error instanceof StackError)) throw error;
  const code = arm.role === "baseline" ? "baseline-failed" : "champion-failed";
  throw new JobError("harness", code, `${error.code}: ${error.message}`, error.logTail);
}
