import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { issuesOf } from "@vibeserve/shared";
import { parse } from "yaml";
import { z } from "zod";

/** Paths into what a CLI prints, "a.b" or "a.*.b"; all that they match is added up, less what `minus` matches. when: only objects in which these paths hold. */
const Sum = z.strictObject({
  at: z.array(z.string().min(1)).min(1),
  minus: z.array(z.string().min(1)).default([]),
  when: z.record(z.string(), z.string()).default({}),
});
export type Sum = z.infer<typeof Sum>;

/** "POST /v1/messages", relative to the base URL's path; {model} stands for a model's name. */
const Route = z.string().regex(/^(GET|POST) \/[A-Za-z0-9_.:/{}-]*$/, 'is not of the form "POST /path"');

/**
 * How one coding CLI is run: data, see prompts/agents. Text may hold slots:
 * ${PROMPT} (argv only), ${PROMPT_FILE}, ${MODEL}, ${WORKTREE}, ${HOME}, ${BASE_URL} and ${KEY} (of the proxy, the key being a placeholder), ${NODE} and
 * ${MCP_SERVER} ${MCP_SOCKET} (what to start as an MCP server over stdio), ${WALL_MS}, ${WALL_S}.
 */
export const Recipe = z.strictObject({
  /** Looked for on PATH. */
  program: z.string().regex(/^[A-Za-z0-9_.-]+$/, "is a program's name, not a path"),
  /** Told to whoever has not got it. */
  install: z.string().min(1),
  /** Folders of its installation, where they are not found from the program's own place. Read-only in the sandbox. */
  folders: z.array(z.string().startsWith("/").min(2)).default([]),
  argv: z.array(z.string()),
  /** What it reads: the prompt, or nothing. */
  stdin: z.enum(["prompt", "nothing"]),
  env: z.record(z.string().regex(/^[A-Z_][A-Z0-9_]*$/), z.string()),
  /** Settings that it finds at its start, by their path in the sandbox. */
  files: z.record(z.string().startsWith("${HOME}/"), z.string()).default({}),
  api: z.strictObject({
    baseUrl: z.url({ protocol: /^https?$/ }),
    /** How the provider is told the credential. */
    auth: z.enum(["x-api-key", "bearer", "x-goog-api-key"]),
    /** The variable of the coordinator's environment that holds it. */
    credential: z.string().regex(/^[A-Z_][A-Z0-9_]*$/),
    /** Requests that cost money, and those that don't; no other passes. */
    paid: z.array(Route).min(1),
    free: z.array(Route).default([]),
  }),
  /** json: one object on stdout; json-lines: one a line. The text is the last that matches. */
  output: z.strictObject({
    format: z.enum(["json", "json-lines"]),
    text: Sum.omit({ minus: true }),
    costUsd: Sum.nullable(),
    usage: z.strictObject({ input: Sum, output: Sum, cacheRead: Sum.nullable(), cacheWrite: Sum.nullable() }),
  }),
});
export type Recipe = z.infer<typeof Recipe>;

export const SLOTS = [
  ...["PROMPT", "PROMPT_FILE", "MODEL", "WORKTREE", "HOME", "BASE_URL", "KEY"],
  ...["NODE", "MCP_SERVER", "MCP_SOCKET", "WALL_MS", "WALL_S"],
] as const;
export type Slots = Readonly<Record<(typeof SLOTS)[number], string>>;

/** A recipe that can't be used: found when it is loaded, before anything is paid for. */
export class RecipeError extends Error {
  override readonly name = "RecipeError";
}

/** The shipped recipes of `<root>/prompts/agents/<name>.yaml`, and over them the user's own of `<data>/agents.yaml` (name → recipe). Throws RecipeError. */
export function loadRecipes(root: string, data: string): Map<string, Recipe> {
  const recipes = new Map<string, Recipe>();
  const shipped = join(root, "prompts", "agents");
  for (const file of readdirSync(shipped).filter((name) => name.endsWith(".yaml")))
    recipes.set(file.slice(0, -".yaml".length), recipeOf(join(shipped, file), read(join(shipped, file))));
  const own = join(data, "agents.yaml");
  if (!existsSync(own)) return recipes;
  const given = z.record(z.string().regex(/^[a-z0-9-]+$/), z.unknown()).safeParse(read(own) ?? {});
  if (!given.success) throw new RecipeError(`${own}: ${issuesOf(given.error)}`);
  for (const [name, value] of Object.entries(given.data)) recipes.set(name, recipeOf(`${own}: ${name}`, value));
  return recipes;
}

function read(path: string): unknown {
  try {
    return parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new RecipeError(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Throws RecipeError, `where` in front. */
export function recipeOf(where: string, value: unknown): Recipe {
  const parsed = Recipe.safeParse(value);
  if (!parsed.success) throw new RecipeError(`${where}: ${issuesOf(parsed.error)}`);
  const { argv, env, files, stdin } = parsed.data;
  const settings = [...Object.values(env), ...Object.keys(files), ...Object.values(files)];
  for (const slot of [...argv, ...settings].flatMap(slotsOf))
    if (!(SLOTS as readonly string[]).includes(slot))
      throw new RecipeError(`${where}: unknown slot \${${slot}}; there are: ${SLOTS.join(", ")}`);
  if (settings.flatMap(slotsOf).includes("PROMPT")) throw new RecipeError(`${where}: \${PROMPT} may stand in argv only`);
  if (stdin === "nothing" && !argv.flatMap(slotsOf).some((slot) => slot.startsWith("PROMPT")))
    throw new RecipeError(`${where}: the prompt reaches it neither by stdin nor by \${PROMPT} or \${PROMPT_FILE}`);
  return parsed.data;
}

const SLOT = /\$\{([^}]*)\}/g;
const slotsOf = (text: string): string[] => [...text.matchAll(SLOT)].map(([, slot]) => slot ?? "");

export const fillSlots = (text: string, slots: Slots): string => text.replace(SLOT, (_, slot: keyof Slots) => slots[slot]);
