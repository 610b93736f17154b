import { execFile } from "node:child_process";
import { existsSync, lstatSync, readdirSync, readlinkSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { parseJson, sha256 } from "@vibeserve/shared";
import { z } from "zod";
import { ConfigError } from "../config-error.ts";
import { forbidden, outermost, within } from "./forbidden.ts";
import { openToAll } from "./placement.ts";
import { isExecutable } from "./probe-sandbox.ts";
import { SERVE_LIMITS } from "./rlimits.ts";
import type { Sandbox } from "./sandbox.ts";
import { spawnSandboxed } from "./spawn.ts";

/** A Python that is not the system's, as sandboxes show it: where a stack says `python3`, it gets this one. */
export interface SandboxPython {
  /** As it was named. */
  readonly program: string;
  /** Comes first on PATH: `python3` in it is this interpreter, and so is `python` where there is one. */
  readonly bin: string;
  /** What it needs outside /usr: folders and files, read-only at their own paths. */
  readonly mounts: readonly string[];
  /** Of what is shown, the folders from which it imports. */
  readonly libraries: readonly string[];
  /** sys.prefix: says which interpreter answers. */
  readonly prefix: string;
  readonly version: string;
  /** Over all of the above, and the packages that are installed there in their versions: a part of a build's key. */
  readonly digest: string;
}

/** Nothing is imported but what every Python has, and no environment or user's site is heard. */
const ASK = `import json, os, site, sys, sysconfig
cfg = os.path.join(sys.prefix, "pyvenv.cfg")
lines = [l.split("=", 1) for l in open(cfg, encoding="utf-8") if "=" in l] if os.path.exists(cfg) else []
paths = sysconfig.get_paths()
print(json.dumps({
    "executable": sys.executable, "version": sys.version, "prefix": sys.prefix,
    "prefixes": [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix],
    "folders": [*(paths[k] for k in ("stdlib", "platstdlib", "purelib", "platlib", "include")), *site.getsitepackages(),
                *(v.strip() for k, v in lines if k.strip() == "home")],
}))`;
const Answer = z.object({
  executable: z.string().startsWith("/"),
  version: z.string(),
  prefix: z.string(),
  prefixes: z.array(z.string()),
  folders: z.array(z.string()),
});
/** Of a prefix only these: it may be a folder with much beside Python in it (~/.local, a project). */
const OF_PREFIX = ["lib", "lib64", "include", "pyvenv.cfg"];
const ASK_MS = 30_000;
const TRIAL = "import ctypes, json, os, sys; print(json.dumps([sys.prefix, *(p for p in sys.argv[1:] if not os.access(p, os.R_OK))]))";
const systems = (path: string): boolean => /^\/(usr|bin|sbin|lib|lib32|lib64|libx32)(\/|$)/.test(path);

/**
 * The Python that `--python` names, or null where none is named or it is the system's own `python3`, which sandboxes show anyway. `data`: the agent's private
 * folder. Throws ConfigError where it does not run, where its folder's `python3` is another, and where it needs a folder that no candidate may see.
 */
export async function findPython(named: string | null, data: string, home: string = homedir()): Promise<SandboxPython | null> {
  if (named === null) return null;
  const refuse = (why: string): never => {
    throw new ConfigError(`gpu-agent: --python ${named}: ${why}`);
  };
  if (!isAbsolute(named)) refuse("give an absolute path: PATH is not searched");
  if (!isExecutable(named)) refuse("there is no such program");
  const { executable, ...answer } = await ask(named).catch((error: unknown) =>
    refuse(`it does not run: ${error instanceof Error ? error.message.slice(0, 500) : String(error)}`),
  );
  const bin = dirname(executable);
  const real = realpathSync(executable);
  if (["/usr/bin", "/bin"].includes(bin) && existsSync("/usr/bin/python3") && realpathSync("/usr/bin/python3") === real) return null;
  for (const name of ["python3", "python"]) {
    const path = join(bin, name);
    if (existsSync(path) ? realpathSync(path) !== real : name === "python3")
      refuse(
        `${path} is not this interpreter, so a stack that says ${name} would get another: make an environment with it (${named} -m venv DIR) and name DIR/bin/python3`,
      );
  }
  // An interpreter finds its library beside itself, whatever name it was called by.
  const prefixes = [...answer.prefixes, ...answer.prefixes.map((prefix) => realpathSync(prefix)), dirname(dirname(real))];
  const parts = prefixes.flatMap((prefix) => OF_PREFIX.map((name) => join(prefix, name)));
  const wanted = [bin, dirname(real), ...parts, ...answer.folders].map((path) => resolve(path)).filter((path) => existsSync(path));
  const folders = outermost(wanted.filter((path) => !systems(path)));
  const mounts = [...folders, ...links(executable).filter((path) => !systems(path) && !folders.some((folder) => within(path, folder)))];
  for (const path of mounts) {
    const why = forbidden(path, data, home) ?? forbidden(realpathSync(path), data, home);
    if (why !== null)
      refuse(`it needs ${path}, and ${why}, which no candidate may see: make an environment elsewhere (${named} -m venv DIR)`);
  }
  const { prefix, version } = answer;
  const libraries = [...new Set(answer.folders)].filter((path) => existsSync(path));
  const digest = sha256(JSON.stringify([bin, mounts, prefix, version, libraries.map(packagesIn)]));
  return { program: named, bin, mounts, libraries, prefix, version, digest };
}

/** "torch-2.11.0+cu128.dist-info": what is installed in a folder says so by a name with its version. None in one that this user can't list: tryPython() says it. */
function packagesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => /\.(dist|egg)-info$/.test(name))
      .sort();
  } catch {
    return [];
  }
}

/** Every link on the way from a program to its file, the file left out: each must be there for the next to be found. */
function links(program: string): string[] {
  const found: string[] = [];
  for (let path = program; found.length < 40 && lstatSync(path).isSymbolicLink(); path = resolve(dirname(path), readlinkSync(path)))
    found.push(path);
  return found;
}

async function ask(program: string): Promise<z.infer<typeof Answer>> {
  const env = { PATH: "/usr/bin:/bin", LC_ALL: "C.UTF-8", HOME: "/nonexistent" };
  const { stdout } = await promisify(execFile)(program, ["-I", "-c", ASK], { timeout: ASK_MS, cwd: "/", env });
  return Answer.parse(parseJson(stdout));
}

/** Starts it once as a candidate would, and looks who answers. Throws ConfigError that says what to do. */
export async function tryPython(sandbox: Sandbox, python: SandboxPython): Promise<void> {
  const tree = await spawnSandboxed(sandbox, {
    argv: ["python3", "-I", "-c", TRIAL, ...python.libraries],
    ...{ env: {}, mounts: [], cwd: "/tmp", cpus: null, limits: SERVE_LIMITS, provenance: "shipped" as const },
  });
  try {
    const exit = await Promise.race([tree.exited, sleep(ASK_MS, null, { ref: false })]);
    await (exit && tree.logEnded());
    const said = tree.log.text().trim();
    const answer = z.array(z.string()).safeParse(parseJson(said.split("\n").at(-1) ?? "")).data ?? [];
    if (exit?.code === 0 && answer.length === 1 && answer[0] === python.prefix) return;
    const closed = (await unreadable(sandbox, python.mounts)) ?? answer[1] ?? null;
    const why = closed === null ? said.slice(-500) || "it said nothing" : `candidates' user can't read ${closed} (chmod -R a+rX)`;
    throw new ConfigError(`gpu-agent: --python ${python.program}: it does not run in the sandbox: ${why}`);
  } finally {
    await tree.stop(0);
  }
}

/** The first of these that the user whom root drops to can't read; in bubblewrap the folders above are its own. */
async function unreadable(sandbox: Sandbox, paths: readonly string[]): Promise<string | null> {
  for (const path of paths) if (!(await openToAll(path, sandbox.kind === "none"))) return path;
  return null;
}
