import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { digestOf, improvement, type BaselineSpec } from "@vibeserve/shared";
import { z } from "zod";
import { readSealed, writeSealed } from "../artifact/sealed-file.ts";
import type { JobContext } from "../worker/job-context.ts";
import type { LoadedRecipe } from "./recipe.ts";

export const Sweep = z.strictObject({
  /** In the metric's unit, in the recipe's order; a setting that failed is left out. */
  sweep: z.array(z.strictObject({ setting: z.string(), value: z.number() })).min(1),
  strongest: z.string(),
});
export type Sweep = z.infer<typeof Sweep>;

/** What a sweep's outcome depends on (the number of requests is no part of it). Another device, recipe, workload or model has a sweep of its own. */
export function sweepKey(
  recipe: LoadedRecipe,
  spec: Pick<BaselineSpec, "model" | "workload" | "metric">,
  { device, devices }: Pick<JobContext, "device" | "devices">,
): string {
  const { id, name, isa, cores, cpus } = device;
  const others = devices.length > 1 ? { devices: devices.length } : {};
  const { engine, version, install, serve, sweep } = recipe;
  const { arrival, prompt, output } = spec.workload;
  const what = { engine, version, install, serve, sweep, model: spec.model.sha256, arrival, prompt, output, metric: spec.metric };
  return digestOf({ v: 1, ...what, device: { id, name, isa, cores, cpus, ...others } });
}

const fileOf = (cacheDir: string, key: string): string => join(cacheDir, "baselines", "sweeps", `${key}.json`);

/** The remembered sweep, or null; a file that was changed or is no sweep counts as none. */
export async function readSweep(cacheDir: string, key: string): Promise<Sweep | null> {
  const bytes = await readSealed(fileOf(cacheDir, key));
  return bytes && (Sweep.safeParse(JSON.parse(bytes.toString())).data ?? null);
}

export async function writeSweep(cacheDir: string, key: string, sweep: Sweep): Promise<void> {
  const file = fileOf(cacheDir, key);
  await mkdir(dirname(file), { recursive: true });
  await writeSealed(file, JSON.stringify(sweep));
}

/** A second run goes to settings this near to the best, since one run differs by a few percent from the next. */
const CLOSE = 0.9;

/**
 * Measures each setting once, those close to the best once more (noise only slows, so the better of two runs counts), and names the strongest. `measure`
 * gives null for a setting that does not work here; a sweep in which none works is null.
 */
export async function sweepSettings(
  settings: readonly string[],
  metric: BaselineSpec["metric"],
  measure: (setting: string) => Promise<number | null>,
): Promise<Sweep | null> {
  const values = new Map<string, number>();
  const better = (a: number, b: number): number => (improvement(metric, a, b) > 1 ? a : b);
  const tryOne = async (setting: string): Promise<void> => {
    const value = await measure(setting);
    if (value !== null) values.set(setting, better(value, values.get(setting) ?? value));
  };
  for (const setting of settings) await tryOne(setting);
  const best = [...values.values()].reduce((a, b) => better(a, b), NaN);
  const close = [...values].filter(([, v]) => improvement(metric, v, best) >= CLOSE).map(([setting]) => setting);
  if (close.length > 1) for (const setting of close) await tryOne(setting);
  const sweep = settings.flatMap((setting) => {
    const value = values.get(setting);
    return value === undefined ? [] : [{ setting, value }];
  });
  const strongest = sweep.reduce<Sweep["sweep"][number] | null>((a, b) => (a && better(a.value, b.value) === a.value ? a : b), null);
  return strongest && { sweep, strongest: strongest.setting };
}
