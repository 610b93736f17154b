import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { digestOf, sha256 } from "@vibeserve/shared";
import { substitute } from "../serve/substitute.ts";
import { JobError } from "../worker/job-error.ts";
import type { LoadedRecipe } from "./recipe.ts";
import { runTool, type ToolEnd } from "./run-tool.ts";

export interface InstallDeps {
  /** The agent's cache; baselines live under `baselines/`. */
  readonly cacheDir: string;
  /** A Python ≥ 3.9 with pip. */
  readonly python: string;
  readonly signal: AbortSignal;
  progress(phase: string): void;
  log(line: string): void;
}

export interface Installation {
  /** `${ENGINE}`. */
  readonly engineDir: string;
  /** `${PYTHON}`, the venv's. */
  readonly python: string;
  /** The venv, and the interpreter's own folders where they are not the system's. */
  readonly folders: readonly string[];
}

/** Generous multiples of what a recipe states: a slow mirror and two busy cores are no reason to give up. */
const PATIENCE = 5;
const VENV_DEADLINE_MS = 120_000;
const DONE = "installed.json";
/** Named even where they are pip's defaults: a user's own may retry nothing, and pip names a broken connection only when it tries again. */
const PIP = ["-q", "--no-input", "--disable-pip-version-check", "--timeout", "30", "--retries", "3"];

type Place = Pick<InstallDeps, "cacheDir" | "python">;

/** Whether the engine is installed already; installs nothing. */
export async function findInstalled(recipe: LoadedRecipe, deps: Place): Promise<Installation | null> {
  return await readInstalled(await folderOf(recipe, deps));
}

/**
 * Installs the engine into the agent's cache, once: a folder appears there whole or not at all, so a failed or interrupted attempt is simply tried again.
 * Throws JobError `install-failed`: attribution "network" where the package index can't be reached, "harness" for anything else; never the candidate's.
 */
export async function ensureInstalled(recipe: LoadedRecipe, deps: InstallDeps): Promise<Installation> {
  const folder = await folderOf(recipe, deps);
  const known = await readInstalled(folder);
  if (known) return known;
  await mkdir(dirname(folder), { recursive: true });
  const draft = await mkdtemp(`${folder}.draft-`);
  // The user that the sandbox drops to must be able to enter it.
  await chmod(draft, 0o755);
  try {
    await makeVenv(draft, deps);
    await (recipe.install.kind === "pip" ? pipInstall(recipe, recipe.install, draft, deps) : build(recipe, recipe.install, draft, deps));
    await writeFile(
      join(draft, DONE),
      JSON.stringify({ engine: recipe.engine, version: recipe.version, roots: await pythonRoots(draft, deps) }),
    );
    // Another agent may have been first; its folder is as good.
    await rename(draft, folder).catch(async (error: unknown) => {
      if ((await readInstalled(folder)) === null) throw error;
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  const made = await readInstalled(folder);
  if (!made) throw new JobError("harness", "install-failed", `${recipe.engine}: the installation is not where it was put`);
  return made;
}

const venvPython = (folder: string): string => join(folder, "venv/bin/python");

/** Everything that decides what is installed is in the name, so a changed recipe is another folder. */
async function folderOf(recipe: LoadedRecipe, deps: Place): Promise<string> {
  const script = await readFile(join(recipe.folder, "build.sh")).catch(() => null);
  const key = digestOf({ install: recipe.install, version: recipe.version, script: script && sha256(script), python: deps.python });
  return join(deps.cacheDir, "baselines", `${recipe.engine}-${recipe.version}-${key.slice(0, 12)}`);
}

async function readInstalled(folder: string): Promise<Installation | null> {
  const text = await readFile(join(folder, DONE), "utf8").catch(() => null);
  if (text === null) return null;
  const { roots } = JSON.parse(text) as { roots: string[] };
  const python = venvPython(folder);
  if (!existsSync(python)) return null;
  return { engineDir: join(folder, "engine"), python, folders: [folder, ...roots] };
}

/** Debian's python3 has no ensurepip without python3-venv: then the venv is made without pip, and the outer pip installs one into it. */
async function makeVenv(draft: string, deps: InstallDeps): Promise<void> {
  deps.progress("making a Python environment");
  const venv = join(draft, "venv");
  await mkdir(join(draft, "engine"));
  const usual = await runTool([deps.python, "-m", "venv", venv], VENV_DEADLINE_MS, deps.signal);
  if (usual.code === 0) return;
  await rm(venv, { recursive: true, force: true });
  const bare = await runTool([deps.python, "-m", "venv", "--without-pip", venv], VENV_DEADLINE_MS, deps.signal);
  if (bare.code !== 0) throw failed("no Python environment could be made", bare.code === 127 ? bare : usual);
  const pip = await runTool(
    [deps.python, "-m", "pip", "--python", venvPython(draft), "install", ...PIP, "pip"],
    VENV_DEADLINE_MS,
    deps.signal,
  );
  if (pip.code !== 0)
    throw failed(
      "this Python has no ensurepip (Debian: `apt-get install python3-venv`), and pip could not be put into its environment",
      pip,
    );
}

async function pipInstall(
  recipe: LoadedRecipe,
  install: Extract<LoadedRecipe["install"], { kind: "pip" }>,
  draft: string,
  deps: InstallDeps,
): Promise<void> {
  deps.progress(`installing ${recipe.engine} ${recipe.version} (about ${install.minutes} min)`);
  const argv = [venvPython(draft), "-m", "pip", "install", ...PIP, "--only-binary", ":all:", ...install.requirements];
  const end = await runTool(argv, install.minutes * 60_000 * PATIENCE, deps.signal);
  if (end.code !== 0) throw failed(`${recipe.engine} ${recipe.version} could not be installed`, end);
}

async function build(
  recipe: LoadedRecipe,
  install: Extract<LoadedRecipe["install"], { kind: "build" }>,
  draft: string,
  deps: InstallDeps,
): Promise<void> {
  deps.progress(`building ${recipe.engine} ${recipe.version} (about ${install.minutes} min)`);
  const engine = join(draft, "engine");
  const argv = substitute(install.argv, { "${RECIPE}": recipe.folder, "${ENGINE}": engine, "${PYTHON}": venvPython(draft) });
  const end = await runTool(argv, install.minutes * 60_000 * PATIENCE, deps.signal);
  deps.log(end.text);
  if (end.code !== 0) throw failed(`${recipe.engine} ${recipe.version} could not be built`, end);
  if (!existsSync(join(engine, install.produces))) throw failed(`${recipe.engine}'s build made no ${install.produces}`, end);
}

/** Folders that hold the interpreter and its library: the sandbox shows /usr only. */
async function pythonRoots(draft: string, deps: InstallDeps): Promise<string[]> {
  const ask =
    "import os,sys; print(os.path.realpath(sys.base_prefix)); print(os.path.dirname(os.path.dirname(os.path.realpath(sys.executable))))";
  const end = await runTool([venvPython(draft), "-I", "-c", ask], 30_000, deps.signal);
  if (end.code !== 0) throw failed("the Python environment does not run", end);
  return [...new Set(end.text.trim().split("\n"))].filter((root) => root !== "/usr" && !root.startsWith("/usr/"));
}

const NETWORK =
  /NewConnectionError|Failed to establish a new connection|Temporary failure in name resolution|Name or service not known|Connection (refused|reset|aborted)|Network is unreachable|No route to host|timed out|ProxyError|Max retries exceeded|RemoteDisconnected|No matching distribution|Could not find a version|HTTP error|50\d Server Error/i;

/** What pip says where an offline bundle's launcher points it at wheels that are not there. */
const NO_WHEELS = /Location '.*\/parts\/wheels' is ignored/;

function failed(what: string, end: ToolEnd): JobError {
  const bundle = NO_WHEELS.test(end.text) ? "; this is an offline bundle, and its -wheels.tar.gz is not unpacked" : "";
  const why = (end.code === null ? "it took too long" : `exit code ${end.code}`) + bundle;
  const network = end.code === null || NETWORK.test(end.text);
  return new JobError(network ? "network" : "harness", "install-failed", `${what}: ${why}`, end.text.slice(-8000));
}
