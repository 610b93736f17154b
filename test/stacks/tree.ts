import { execFile, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { cp, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import { promisify } from "node:util";
import { cacheDir } from "../kit/weights.ts";

const stack = join(import.meta.dirname, "../../stacks/cpu");
const seams = ["threading", "linear", "attention", "layer", "head", "scheduler"] as const;
export type Seam = (typeof seams)[number];

/** The C++ compiler that tests use: `$CXX`, else c++ or g++. */
export function compiler(): string {
  const found = [process.env["CXX"], "c++", "g++"].find(
    (c) => c !== undefined && spawnSync(`${c} --version`, { shell: true }).status === 0,
  );
  if (found === undefined) throw new Error("no C++ compiler: set CXX, or install g++");
  return found;
}

function filesUnder(dir: string): string[] {
  return readdirSync(join(stack, dir)).flatMap((name) => {
    const path = `${dir}/${name}`;
    return statSync(join(stack, path)).isDirectory() ? filesUnder(path) : [path];
  });
}

/** The paths, relative to stacks/cpu, of a tree that binds the seed to every seam that `bindings` does not name. */
export function treeFiles(bindings: Partial<Record<Seam, string>>): string[] {
  const bound = seams.map((seam) => (bindings[seam] === undefined ? `seed/${seam}.cpp` : `bindings/${seam}/${bindings[seam]}.cpp`));
  const files = new Set(["build.sh", "stack.json", ...filesUnder("core"), ...filesUnder("seams"), ...bound]);
  for (const file of files) {
    for (const [, include] of readFileSync(join(stack, file), "utf8").matchAll(/^#include "(.+)"/gm)) {
      files.add(normalize(join(dirname(file), include ?? "")));
    }
  }
  return [...files].sort();
}

/**
 * Builds a tree with its own build.sh and answers the binary's path. Binaries are kept by digest of sources and compiler in the user's
 * cache, so that test files that need the same one build it once; two that build at the same time both succeed.
 */
export async function builtStack(bindings: Partial<Record<Seam, string>> = {}): Promise<string> {
  const cxx = compiler();
  const files = treeFiles(bindings);
  const digest = createHash("sha256").update(spawnSync(`${cxx} --version`, { shell: true }).stdout);
  for (const file of files) digest.update(`${file}\0`).update(readFileSync(join(stack, file)));
  const builds = join(cacheDir(), "test-builds");
  const place = join(builds, digest.digest("hex").slice(0, 24));
  if (existsSync(join(place, "stack"))) return join(place, "stack");
  await mkdir(builds, { recursive: true });
  const dir = await mkdtemp(join(builds, "building-"));
  try {
    for (const file of files) {
      await mkdir(dirname(join(dir, file)), { recursive: true });
      await cp(join(stack, file), join(dir, file));
    }
    await promisify(execFile)("sh", ["build.sh", cxx, join(dir, "stack")], { cwd: dir });
    await writeFile(join(dir, "bindings.json"), JSON.stringify(bindings));
    await rename(dir, place).catch((error: unknown) => {
      if (!existsSync(join(place, "stack"))) throw error;
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
  return join(place, "stack");
}
