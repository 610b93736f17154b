import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { loadCatalog } from "../../coordinator/src/stack/catalog.ts";
import { applySkill, composeTree, seedBindings } from "../../coordinator/src/stack/compose.ts";
import { ServedStack } from "../stacks/served.ts";
import { tempDir } from "./temp-dir.ts";
import { writeTinyCheckpoint } from "./tiny-checkpoint.ts";
import { cacheDir } from "./weights.ts";

const ROOT = join(import.meta.dirname, "../..");

/** An interpreter, and where it finds what the system's lacks. */
export interface PythonWith {
  readonly command: string;
  readonly path: string;
}

/** Where .ci/run puts Python packages that only tests need. */
export const testPackages = (): string => join(cacheDir(), "test-python");

/** A Python that has these modules: `$VIBESERVE_TEST_PYTHON`, the system's, or one on PATH; null where there is none, so that a test is skipped. */
export function pythonWith(...modules: string[]): PythonWith | null {
  const ask = `import importlib.util as u, sys; sys.exit(not all(u.find_spec(m) for m in ${JSON.stringify(modules)}))`;
  const path = [testPackages(), process.env["PYTHONPATH"] ?? ""].filter((p) => p !== "").join(":");
  for (const command of [process.env["VIBESERVE_TEST_PYTHON"], "/usr/bin/python3", "python3"]) {
    if (command === undefined || (command.startsWith("/") && !existsSync(command))) continue;
    if (spawnSync(command, ["-c", ask], { env: { ...process.env, PYTHONPATH: path } }).status === 0) return { command, path };
  }
  return null;
}

/** A program in `dir` that is this interpreter and finds the tests' packages by itself, as an operator's would. */
export function interpreterOf({ command, path }: PythonWith, dir: string): string {
  const file = join(dir, "python");
  writeFileSync(file, `#!/bin/sh\nPYTHONPATH='${path}' exec '${command}' "$@"\n`);
  chmodSync(file, 0o755);
  return file;
}

/** Builds the tree that a campaign for this stack starts from, with skills bound, as its stack.json says; answers a program that serves it. */
export async function builtPythonStack(name: string, python: PythonWith, dir: string, skills: readonly string[] = []): Promise<string> {
  const catalog = await loadCatalog(ROOT, `stacks/${name}`);
  const tree = join(dir, "tree");
  const bindings = skills.reduce((b, id) => applySkill(catalog, b, id), seedBindings());
  for (const [path, bytes] of composeTree(catalog, bindings, [])) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), bytes);
  }
  const packed = join(dir, "stack");
  execFileSync(python.command, ["build.py", packed], { cwd: tree });
  const program = join(dir, "serve");
  writeFileSync(program, `#!/bin/sh\nPYTHONPATH='${python.path}' exec '${python.command}' '${packed}' "$@"\n`);
  chmodSync(program, 0o755);
  return program;
}

/** A recipe's own server, with the tiny checkpoint. */
export async function serveRecipe(script: string, python: PythonWith): Promise<ServedStack> {
  using dir = tempDir("recipe");
  const [model, program] = [join(dir.path, "tiny"), join(dir.path, "serve")];
  writeTinyCheckpoint(model);
  // ServedStack says which processors to use; the recipe does not ask.
  const words = `'${python.command}' '${join(ROOT, "stacks/baselines", script)}' "$1" "$2" "$3" "$4"`;
  writeFileSync(program, `#!/bin/sh\nPYTHONPATH='${python.path}' exec ${words}\n`);
  chmodSync(program, 0o755);
  return await ServedStack.start(program, model);
}

/** A stack that serves the tiny checkpoint; `seed` chooses its weights, `skills` are bound in this order, `words` end its command line. */
export async function servePythonStack(
  name: string,
  python: PythonWith,
  { seed, skills = [], words = [] }: { seed?: number; skills?: readonly string[]; words?: readonly string[] } = {},
): Promise<ServedStack> {
  using dir = tempDir("python-stack"); // all is read once it is healthy
  const model = join(dir.path, "tiny");
  writeTinyCheckpoint(model, seed);
  return await ServedStack.start(await builtPythonStack(name, python, dir.path, skills), model, undefined, words);
}
