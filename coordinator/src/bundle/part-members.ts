import { copyFile, mkdir, readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { runTool } from "../setup/run-tool.ts";
import { SetupError, verifyPython } from "../setup/index.ts";
import type { Members } from "./archive.ts";
import { PACKAGES, readLock } from "./core-members.ts";
import { filesUnder } from "./files-under.ts";

/** A gigabyte at 1 MB/s, with room. */
const FETCH_MS = 30 * 60_000;

/** The engines of targets/cpu, which are all that an installation on a CPU compares with unless told otherwise. */
const WHEELS_OF = ["openvino"];

const PipRecipe = z.object({ install: z.object({ kind: z.literal("pip"), requirements: z.array(z.string()) }) });

/** Wheels as pip would fetch them for the Python of this machine, and pip itself for a Python without ensurepip, at `parts/wheels/`. */
export async function wheelMembers(root: string, scratch: string, signal: AbortSignal): Promise<{ members: Members; python: string }> {
  const python = await verifyPython(signal);
  const recipes = await Promise.all(WHEELS_OF.map((name) => readFile(join(root, "stacks/baselines", name, "baseline.json"), "utf8")));
  const wanted = recipes.flatMap((text) => PipRecipe.parse(JSON.parse(text)).install.requirements);
  const flags = ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off"];
  await fetched("wheels", [python.path, "-m", "pip", "download", ...flags, "--dest", scratch, "pip", ...wanted], scratch, signal);
  const members: Members = new Map();
  for (const name of await readdir(scratch)) members.set(`parts/wheels/${name}`, { file: join(scratch, name) });
  return { members, python: python.version };
}

/**
 * Tarballs of the lock in the form of npm's own cache, at `parts/npm/`, and the lock with the public registry's address at each package: npm searches its cache by
 * digest only for what has an address, and asks no registry then. Packages for other platforms are left out, as npm leaves them out.
 */
export async function npmMembers(root: string, scratch: string, signal: AbortSignal): Promise<Members> {
  for (const name of ["package.json", "package-lock.json", ...PACKAGES.map((p) => `${p}/package.json`)]) {
    await mkdir(dirname(join(scratch, name)), { recursive: true });
    await copyFile(join(root, name), join(scratch, name));
  }
  const cache = join(scratch, "cache");
  await fetched(
    "npm",
    ["npm", "ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--cache", cache],
    scratch,
    signal,
  );
  const here = new Set(await filesUnder(cache));
  const members: Members = new Map();
  const lock = z
    .looseObject({ packages: z.record(z.string(), z.looseObject({})) })
    .parse(JSON.parse(await readFile(join(root, "package-lock.json"), "utf8")));
  for (const [place, { integrity, optional, version }] of Object.entries(readLock(root))) {
    const [, kind, base64 = ""] = /^(sha\d+)-(\S+)$/.exec(integrity ?? "") ?? [];
    if (kind === undefined) continue;
    const hex = Buffer.from(base64, "base64").toString("hex");
    const content = `_cacache/content-v2/${kind}/${hex.slice(0, 2)}/${hex.slice(2, 4)}/${hex.slice(4)}`;
    if (here.has(content)) members.set(`parts/npm/${content}`, { file: join(cache, content) });
    else if (!optional) throw new SetupError("npm", `npm fetched no ${place}`, "try again");
    const name = place.slice(place.lastIndexOf("node_modules/") + "node_modules/".length);
    Object.assign(lock.packages[place] ?? {}, { resolved: `https://registry.npmjs.org/${name}/-/${basename(name)}-${version ?? ""}.tgz` });
  }
  return members.set("parts/npm/package-lock.json", { content: `${JSON.stringify(lock, null, 2)}\n` });
}

async function fetched(step: string, argv: [string, ...string[]], cwd: string, signal: AbortSignal): Promise<void> {
  const end = await runTool(argv, { cwd, signal, deadlineMs: FETCH_MS });
  if (end.kind === "ended" && end.code === 0) return;
  const said = end.kind === "missing" ? `there is no ${argv[0]}` : end.text.trim().split("\n").slice(-3).join(" / ");
  throw new SetupError(step, `what the archive holds could not be fetched: ${said}`, "see that message");
}
