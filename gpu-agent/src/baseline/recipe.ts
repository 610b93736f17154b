import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Device, Feature, issuesOf, ModelFormat, parseJson } from "@vibeserve/shared";
import { z } from "zod";
import { JobError } from "../worker/job-error.ts";

/** The recipes of this installation. */
export const RECIPES = join(import.meta.dirname, "../../../stacks/baselines");

const Argv = z.array(z.string()).min(1);

/** Settings that are tried; the first is the engine as its users get it. */
const Setting = z.strictObject({ name: z.string().min(1), args: z.array(z.string()), env: z.record(z.string(), z.string()) });
export type Setting = z.infer<typeof Setting>;

const Install = z.discriminatedUnion("kind", [
  /** Packages for the recipe's own venv; each requirement pins its version. */
  z.strictObject({ kind: z.literal("pip"), requirements: z.array(z.string().min(1)).min(1), minutes: z.number().positive().default(2) }),
  /** `argv` makes `${ENGINE}/<produces>`. */
  z.strictObject({ kind: z.literal("build"), argv: Argv, produces: z.string().min(1), minutes: z.number().positive() }),
]);

/**
 * `stacks/baselines/<folder>/baseline.json`: how an existing engine is installed, started and swept. Placeholders: `${RECIPE}` this folder, `${ENGINE}`
 * where the install step put things, `${PYTHON}` the venv's interpreter, `${SOCKET}`, `${MODEL}`, `${CPUS}` "0,1", `${THREADS}` their number, `${DEVICES}` on how many devices.
 */
export const Recipe = z.strictObject({
  v: z.literal(1),
  kind: z.literal("baseline"),
  engine: z.string().min(1),
  version: z.string().min(1),
  dialect: z.enum(["openai", "openai-ids", "llama.cpp"]),
  /** What it can be compared on. Absent: GGUF files, on a CPU. */
  takes: z.strictObject({ formats: z.array(ModelFormat).min(1), devices: z.array(Device.shape.kind).min(1) }).optional(),
  /** false: never installed or run on a device of its kind; what it says comes from the engine's own sources. Absent: it was. */
  verified: z.literal(false).optional(),
  install: Install,
  serve: Argv,
  /** What the socket's path must end in for the engine to take it for one. */
  socketSuffix: z.string().optional(),
  features: z.array(Feature),
  memBytes: z.int().min(1),
  healthTimeoutMs: z.int().min(1),
  sweep: z.array(Setting).min(1),
});
export type Recipe = z.infer<typeof Recipe>;

export interface LoadedRecipe extends Recipe {
  readonly folder: string;
}

/**
 * The recipe of an engine among the folders of stacks/baselines. Another engine's broken recipe does not matter. Throws JobError harness `bad-recipe`
 * where there is none.
 */
export async function loadRecipe(baselinesDir: string, engine: string): Promise<LoadedRecipe> {
  const others: string[] = [];
  for (const name of await readdir(baselinesDir)) {
    const folder = join(baselinesDir, name);
    const text = await readFile(join(folder, "baseline.json"), "utf8").catch(() => null);
    if (text === null) continue;
    const parsed = Recipe.safeParse(parseJson(text));
    if (parsed.success && parsed.data.engine === engine) return { ...parsed.data, folder };
    others.push(parsed.success ? parsed.data.engine : `${name}/baseline.json, which is broken (${issuesOf(parsed.error)})`);
  }
  throw new JobError("harness", "bad-recipe", `there is no recipe of the engine "${engine}"; there are: ${others.join(", ")}`);
}
