import { copyFile, mkdir, readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { pipPlatform, SetupError, verifyPython } from "../setup/index.ts";
import type { Members } from "./archive.ts";
import { nameAt, PACKAGES, readLock } from "./core-members.ts";
import { fetched } from "./fetched.ts";
import { filesUnder } from "./files-under.ts";

/** The engines of targets/cpu, which are all that an installation on a CPU compares with unless told otherwise. */
const WHEELS_OF = ["openvino"];

const PipRecipe = z.object({ install: z.object({ kind: z.literal("pip"), requirements: z.array(z.string()) }) });

/** Wheels as pip would fetch them for the Python of this machine, and pip itself for a Python without ensurepip, at `parts/wheels/`. */
export async function wheelMembers(
  root: string,
  platform: string,
  scratch: string,
  signal: AbortSignal,
): Promise<{ members: Members; python: string }> {
  const python = await verifyPython(signal);
  const recipes = await Promise.all(WHEELS_OF.map((name) => readFile(join(root, "stacks/baselines", name, "baseline.json"), "utf8")));
  const wanted = recipes.flatMap((text) => PipRecipe.parse(JSON.parse(text)).install.requirements);
  const flags = ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off", ...pipPlatform(platform)];
  await fetched("wheels", [python.path, "-m", "pip", "download", ...flags, "--dest", scratch, "pip", ...wanted], scratch, signal);
  const members: Members = new Map();
  for (const name of await readdir(scratch)) members.set(`parts/wheels/${name}`, { file: join(scratch, name) });
  return { members, python: python.version };
}

/**
 * Tarballs of the lock in the form of npm's own cache, at `parts/npm/`, and the lock with the public registry's address at each package: npm searches its cache by
 * digest only for what has an address, and asks no registry then. Packages for other platforms are left out, as npm leaves them out.
 */
export async function npmMembers(root: string, platform: string, scratch: string, signal: AbortSignal): Promise<Members> {
  for (const name of ["package.json", "package-lock.json", ...PACKAGES.map((p) => `${p}/package.json`)]) {
    await mkdir(dirname(join(scratch, name)), { recursive: true });
    await copyFile(join(root, name), join(scratch, name));
  }
  const cache = join(scratch, "cache");
  const [os, cpu] = platform.split("-");
  await fetched(
    "npm",
    [
      "npm",
      "ci",
      "--include=dev",
      `--os=${os}`,
      `--cpu=${cpu}`,
      "--ignore-scripts",
      "--no-audit",
      "--no-fund",
      "--loglevel=error",
      "--cache",
      cache,
    ],
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
    const name = nameAt(place);
    Object.assign(lock.packages[place] ?? {}, { resolved: `https://registry.npmjs.org/${name}/-/${basename(name)}-${version ?? ""}.tgz` });
  }
  return members.set("parts/npm/package-lock.json", { content: `${JSON.stringify(lock, null, 2)}\n` });
}
