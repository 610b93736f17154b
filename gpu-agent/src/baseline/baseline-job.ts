import { clientsOf, type BaselineSpec, type CheckReport } from "@vibeserve/shared";
import type { z } from "zod";
import type { BenchArm } from "../bench/arms.ts";
import type { ModelRef, ModelTools } from "../bench/bench-job.ts";
import type { QuietLimits } from "../bench/quiet.ts";
import { measureAlone } from "../bench/measure-alone.ts";
import { StackError, type RunningStack } from "../serve/running-stack.ts";
import type { JobContext, JobHandler } from "../worker/job-context.ts";
import { JobError } from "../worker/job-error.ts";
import { ensureInstalled, findInstalled, type InstallDeps } from "./install.ts";
import { loadRecipe, type LoadedRecipe, type Setting } from "./recipe.ts";
import { startBaseline } from "./start-baseline.ts";
import { readSweep, sweepKey, sweepSettings, writeSweep, type Sweep } from "./sweep.ts";
import { tempFolder } from "../process/temp-folder.ts";

type Accuracy = z.infer<typeof CheckReport> | null;

export interface BaselineDeps {
  /** stacks/baselines of the installation. */
  readonly baselinesDir: string;
  readonly cacheDir: string;
  /** Throws where there is no Python ≥ 3.9 with pip. */
  python(signal: AbortSignal): Promise<string>;
  modelPath(model: ModelRef): Promise<string>;
  modelTools(model: ModelRef, ctx: JobContext): Promise<ModelTools>;
  /** The same judge as for candidates; null where this engine can't be judged (no /v1/score). */
  judge(stack: RunningStack, recipe: LoadedRecipe, model: ModelRef, ctx: JobContext): Promise<Accuracy>;
  /** Private to the agent. */
  readonly workDir: string;
  /** Ends what the evaluator has in the device's memory, of which an engine takes most; the returned function says that the engine has ended. */
  yieldDevice(signal: AbortSignal): Promise<() => void>;
  /** Default limitsFor(device). */
  readonly limits?: QuietLimits;
}

const installDeps = async (deps: BaselineDeps, ctx: JobContext): Promise<InstallDeps> => ({
  cacheDir: deps.cacheDir,
  python: await deps.python(ctx.signal),
  signal: ctx.signal,
  progress: (phase) => ctx.progress(phase),
  log: (line) => ctx.log(line),
});

/** A run of a setting that takes longer is no setting to compare with. */
const RUN_LIMIT_MS = 120_000;

/**
 * Job `baseline`: installs the engine where it is not yet, sweeps its settings on a short load with the candidates' own load generator, remembers the
 * strongest for this device, model and workload, judges it. Done once: a second job answers from the cache. Failures are never a candidate's.
 */
export function baselineHandler(deps: BaselineDeps): JobHandler<BaselineSpec> {
  return async (job, ctx) => {
    const { spec } = job;
    const startedAt = performance.now();
    const recipe = await loadRecipe(deps.baselinesDir, spec.engine);
    await ensureInstalled(recipe, await installDeps(deps, ctx));
    const key = sweepKey(recipe, spec, ctx);
    const known = await readSweep(deps.cacheDir, key);
    const found = known ?? (await sweepRecipe(deps, recipe, spec, ctx));
    if (!known) await writeSweep(deps.cacheDir, key, found);
    const accuracy = await judgeSetting(deps, recipe, found.strongest, spec.model, ctx);
    const { engine, version } = recipe;
    return { status: "baseline-ready", engine, version, ...found, accuracy, seconds: (performance.now() - startedAt) / 1000 };
  };
}

async function sweepRecipe(deps: BaselineDeps, recipe: LoadedRecipe, spec: BaselineSpec, ctx: JobContext): Promise<Sweep> {
  const tools = await deps.modelTools(spec.model, ctx);
  await using temporary = await tempFolder("sweep-", deps.workDir);
  const short = { ...spec.workload, requests: Math.min(spec.workload.requests, 2 * clientsOf(spec.workload)) };
  const failures: string[] = [];
  const measure = async (name: string): Promise<number | null> => {
    ctx.progress(`sweeping ${recipe.engine}: ${name}`);
    let stack: RunningStack | null = null;
    try {
      stack = await startSetting(deps, recipe, settingOf(recipe, name), spec.model, ctx);
      const arm = { stack, dialect: recipe.dialect };
      const limits = deps.limits ? { limits: deps.limits } : {};
      const alone = { ...tools, ...limits, device: ctx.device, workDir: temporary.path, signal: ctx.signal };
      const value = await measureAlone(arm, short, spec.metric, RUN_LIMIT_MS, alone);
      ctx.log(`${recipe.engine} ${name}: ${value.toFixed(1)} ${spec.metric.unit}`);
      return value;
    } catch (error) {
      // One setting that does not work on this machine must not hide the others.
      const own = error instanceof StackError || (error instanceof JobError && error.attribution === "candidate");
      if (!own) throw error;
      failures.push(`${name}: ${error.code}: ${error.message}`);
      ctx.log(`${recipe.engine} ${name} failed: ${error.code}: ${error.message}\n${error.logTail}`);
      return null;
    } finally {
      await stack?.stop();
    }
  };
  const settings = recipe.sweep.map((s) => s.name);
  const sweep = await sweepSettings(settings, spec.metric, measure);
  if (!sweep) throw new JobError("harness", "baseline-failed", `no setting of ${recipe.engine} works: ${failures.join("; ")}`);
  return sweep;
}

async function judgeSetting(deps: BaselineDeps, recipe: LoadedRecipe, name: string, model: ModelRef, ctx: JobContext): Promise<Accuracy> {
  if (!recipe.features.includes("score")) return null;
  ctx.progress(`judging ${recipe.engine}`);
  const stack = await startSetting(deps, recipe, settingOf(recipe, name), model, ctx);
  try {
    return await deps.judge(stack, recipe, model, ctx);
  } finally {
    await stack.stop();
  }
}

/**
 * An arm of a comparison: the named setting, or the strongest that the sweep of this device, model, workload and metric found. Throws JobError harness
 * `baseline-not-ready` where no `baseline` job has run, StackError where the engine does not come up.
 */
export async function startBaselineArm(
  deps: BaselineDeps,
  arm: { readonly engine: string; readonly setting: string | null },
  spec: Pick<BaselineSpec, "model" | "workload" | "metric">,
  ctx: JobContext,
): Promise<BenchArm> {
  const recipe = await loadRecipe(deps.baselinesDir, arm.engine);
  const installed = await findInstalled(recipe, await installDeps(deps, ctx));
  const name = arm.setting ?? (await readSweep(deps.cacheDir, sweepKey(recipe, spec, ctx)))?.strongest;
  if (!installed || name === undefined) {
    const what = installed ? "no setting was measured on this device" : "it is not installed";
    throw new JobError("harness", "baseline-not-ready", `${recipe.engine}: ${what}: a baseline job has to run first`);
  }
  const setting = settingOf(recipe, name);
  const stack = await startSetting(deps, recipe, setting, spec.model, ctx);
  const engine = { name: recipe.engine, version: recipe.version, setting: setting.name };
  return { role: "baseline", stack, dialect: recipe.dialect, treeDigest: null, buildDigest: null, engine };
}

async function startSetting(
  deps: BaselineDeps,
  recipe: LoadedRecipe,
  setting: Setting,
  model: ModelRef,
  ctx: JobContext,
): Promise<RunningStack> {
  const installed = await findInstalled(recipe, await installDeps(deps, ctx));
  if (!installed) throw new JobError("harness", "baseline-not-ready", `${recipe.engine} is not installed`);
  const path = await deps.modelPath(model);
  const ended = await deps.yieldDevice(ctx.signal);
  try {
    const stack = await startBaseline({ sandbox: ctx.sandbox }, recipe, installed, setting, path, ctx);
    return { ...stack, stop: () => stack.stop().finally(ended) };
  } catch (error) {
    ended();
    throw error;
  }
}

function settingOf(recipe: LoadedRecipe, name: string): Setting {
  const setting = recipe.sweep.find((s) => s.name === name);
  if (!setting) throw new JobError("harness", "bad-recipe", `${recipe.engine} has no setting "${name}"`);
  return setting;
}
