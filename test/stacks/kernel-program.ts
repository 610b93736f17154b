import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cacheDir } from "../kit/weights.ts";
import { compiler } from "./tree.ts";

const stack = join(import.meta.dirname, "../../stacks/cpu");
export const kernels = join(import.meta.dirname, "kernels");

/**
 * Compiles test/stacks/kernels/NAME.cpp with files of the stack and answers the program's path. Kept in the user's cache by the
 * preprocessed source, so that an unchanged kernel costs no second compilation.
 */
export async function kernelProgram(name: string, parts: string[], flags: string[] = []): Promise<string> {
  const run = promisify(execFile);
  const [cxx = "c++", ...words] = compiler().split(" ");
  const options = [...words, "-O1", "-std=c++20", "-pthread", "-Wall", "-Wextra", "-Werror", ...flags];
  const sources = [join(kernels, `${name}.cpp`), ...parts.map((p) => join(stack, p))];
  const digest = createHash("sha256").update(options.join(" "));
  for (const source of sources) digest.update((await run(cxx, [...options, "-E", "-P", source], { maxBuffer: 2 ** 30 })).stdout);
  const builds = join(cacheDir(), "test-builds");
  const out = join(builds, `${name}-${digest.digest("hex").slice(0, 24)}`);
  if (existsSync(out)) return out;
  await mkdir(builds, { recursive: true });
  const draft = `${out}.${process.pid}`;
  await run(cxx, [...options, ...sources, "-o", draft]);
  await rename(draft, out);
  return out;
}
