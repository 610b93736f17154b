import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  Device,
  fitOf,
  issuesOf,
  ModelFormat,
  ModelShape,
  notRunnableYet,
  StackManifest,
  type FitReport,
  type Target,
} from "@vibeserve/shared";
import { z } from "zod";
import type { SkillFile } from "../stack/skill-file.ts";
import { admits, scopeOf } from "../stack/skill-scope.ts";
import { messageOf } from "../process/message-of.ts";

/** What can be said of a target without its device, its weights or the network. */
export interface TargetReport {
  /** [key, value and what to do]: the target can't be meant so. */
  readonly problems: readonly (readonly [keys: readonly string[], message: string])[];
  /** Null: the target states no `fits`. */
  readonly fit: FitReport | null;
  readonly notRunnable: readonly string[];
  readonly notes: readonly string[];
  readonly skills: number;
}

/** Of a recipe, what decides whether it can be compared with; the agent checks the rest when it loads it. */
const RecipeHead = z.object({
  engine: z.string(),
  version: z.string(),
  takes: z.object({ formats: z.array(ModelFormat), devices: z.array(Device.shape.kind) }).default({ formats: ["gguf"], devices: ["cpu"] }),
  verified: z.literal(false).optional(),
});

const ENDS = { formats: ["gguf"] as ModelFormat[], families: ["llama"] };

/** Checks a target that parses against the installation at `root`. */
export function checkTarget(root: string, target: Target, skills: ReadonlyMap<string, SkillFile>): TargetReport {
  const problems: [string[], string][] = [];
  const notes: string[] = [];
  const notRunnable = notRunnableYet(target);
  const format = target.model.format ?? "gguf";
  const scope = scopeOf(target, null);
  const count = target.deviceCount ?? 1;
  const shape = target.fits ? read(ModelShape, join(root, "targets", "models", `${target.fits.shape}.json`)) : null;
  if (typeof shape === "string")
    problems.push([["fits", "shape"], `"${target.fits?.shape ?? ""}": ${shape}; there are: ${shapes(root).join(", ")}`]);

  const seed = read(StackManifest, join(root, target.seed, "stack.json"));
  if (typeof seed === "string") problems.push([["seed"], `"${target.seed}": stack.json ${seed}; there are: ${seeds(root).join(", ")}`]);
  else {
    const { formats, families } = seed.loads ?? ENDS;
    const { maxDevices = 1 } = seed.resources;
    if (count > maxDevices)
      problems.push([
        ["deviceCount"],
        `${count}: "${target.seed}" serves on ${maxDevices} at the most (resources.maxDevices of its stack.json)`,
      ]);
    if (!formats.includes(format)) problems.push([["seed"], `"${target.seed}" loads ${formats.join(", ")}, and the model is ${format}`]);
    if (shape !== null && typeof shape === "object" && !families.includes(shape.type))
      notRunnable.push(
        `seed: ${target.seed} does not load ${shape.type}, only ${families.join(", ")}; an agent would have to write that first`,
      );
  }

  const recipes = readRecipes(root);
  target.baselines.forEach((engine, i) => {
    const recipe = recipes.get(engine);
    const keys = ["baselines", String(i)];
    if (!recipe) return problems.push([keys, `"${engine}" has no recipe; there are: ${[...recipes.keys()].sort().join(", ")}`]);
    if (!recipe.takes.formats.includes(format))
      problems.push([keys, `"${engine}" reads ${recipe.takes.formats.join(", ")}, and the model is ${format}`]);
    if (scope.device !== null && !recipe.takes.devices.includes(scope.device))
      problems.push([keys, `"${engine}" runs on ${recipe.takes.devices.join(", ")}, and the device is ${scope.device}`]);
    return notes.push(`baseline ${engine} ${recipe.version}${recipe.verified === false ? ": recipe unverified on device" : ""}`);
  });

  if (count > 1 && (scope.device === "cpu" || scope.device === "apple"))
    problems.push([["deviceCount"], `${count}: a machine has one device of kind ${scope.device}; allowed: 1`]);
  if (scope.device === null)
    problems.push([["device"], `no label vibeserve.dev/device.kind; allowed: ${Device.shape.kind.options.join(", ")}`]);
  if (target.loads) notes.push(`loads: ${target.loads.length} further arrivals are stated, and not measured yet`);
  const reference = target.accuracy.reference;
  if (reference)
    notes.push(
      `reference: ${reference.type} on the ${reference.place}, ${reference.memGiB} GiB, about ${reference.minutes} min a campaign`,
    );
  if (format === "hf" && !reference)
    problems.push([["accuracy", "reference"], "is missing; a Hugging Face checkpoint states what its reference takes"]);

  const fit = target.fits && shape !== null && typeof shape === "object" ? fitFor(root, target, target.fits, shape, problems) : null;
  if (fit?.ok === false)
    problems.push([
      ["fits"],
      `${gib(fit.bytes)} GiB do not fit ${gib(fit.deviceBytes)} GiB; smaller weights, fewer or shorter requests, or another device`,
    ]);
  return {
    problems,
    fit,
    notRunnable,
    notes: [...notes, ...(fit?.notes ?? [])],
    skills: [...skills.values()].filter((s) => admits(s.skill.appliesTo, scope)).length,
  };
}

function fitFor(
  root: string,
  target: Target,
  fits: NonNullable<Target["fits"]>,
  shape: ModelShape,
  problems: [string[], string][],
): FitReport {
  const { weights, deviceMiB, draft } = fits;
  const devices = target.deviceCount ?? 1;
  const small = draft ? read(ModelShape, join(root, "targets", "models", `${draft.shape}.json`)) : null;
  if (typeof small === "string") problems.push([["fits", "draft", "shape"], `"${draft?.shape ?? ""}": ${small}`]);
  const given =
    draft && small !== null && typeof small === "object"
      ? { weights, deviceMiB, devices, draft: { shape: small, weights: draft.weights } }
      : { weights, deviceMiB, devices };
  return fitOf(shape, given, target.workload);
}

export const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);

/** The parsed file, or what is wrong with it. */
function read<S extends z.ZodType>(schema: S, path: string): z.infer<S> | string {
  if (!existsSync(path)) return "does not exist";
  try {
    const parsed = schema.safeParse(JSON.parse(readFileSync(path, "utf8")));
    return parsed.success ? parsed.data : issuesOf(parsed.error);
  } catch (error) {
    return messageOf(error);
  }
}

function readRecipes(root: string): Map<string, z.infer<typeof RecipeHead>> {
  const recipes = new Map<string, z.infer<typeof RecipeHead>>();
  for (const name of readdirSync(join(root, "stacks", "baselines"))) {
    const recipe = read(RecipeHead, join(root, "stacks", "baselines", name, "baseline.json"));
    if (typeof recipe === "object") recipes.set(recipe.engine, recipe);
  }
  return recipes;
}

/** Names of the shapes that ship. */
export const shapes = (root: string): string[] =>
  readdirSync(join(root, "targets", "models")).flatMap((f) => (f.endsWith(".json") && f !== "sources.json" ? [f.slice(0, -5)] : []));
const seeds = (root: string): string[] =>
  readdirSync(join(root, "stacks")).flatMap((f) => (existsSync(join(root, "stacks", f, "stack.json")) ? [`stacks/${f}`] : []));
