import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { makeSealed, readSealed } from "../artifact/sealed-file.ts";

const run = promisify(execFile);
/** Folder of the reference's sources, relative to this file, so that it is found wherever the product lies. */
const SOURCES = join(import.meta.dirname, "../../reference");
/** g++ needs 5 s, zig's first run two minutes (it compiles its own runtime). */
const BUILD_TIMEOUT_MS = 300_000;

export interface BuildReferenceOptions {
  /** argv of a C++20 compiler: `["c++"]`, `["python3", "-m", "ziglang", "c++"]`. */
  readonly compiler: readonly string[];
  /** Executables are kept in `<cacheDir>/<digest of sources and compiler>/`. */
  readonly cacheDir: string;
}

/**
 * Path of the reference's executable, whose bytes were hashed in this call: built if these sources were not built with this compiler yet, or what was
 * built is damaged. Throws with the compiler's message.
 */
export async function buildReference({ compiler, cacheDir }: BuildReferenceOptions): Promise<string> {
  const [command, ...args] = compiler;
  if (command === undefined) throw new Error("no compiler was given");
  const options = { timeout: BUILD_TIMEOUT_MS, maxBuffer: 8 << 20 };
  const version = await run(command, [...args, "--version"], options);
  const digest = createHash("sha256").update(JSON.stringify([compiler, version.stdout]));
  for (const name of (await readdir(SOURCES)).filter((n) => /\.[ch]pp$/.test(n)).sort())
    digest.update(name).update(await readFile(join(SOURCES, name)));
  const folder = join(cacheDir, digest.digest("hex").slice(0, 32));
  const executable = join(folder, "reference");
  if ((await readSealed(executable)) !== null) return executable;
  await mkdir(folder, { recursive: true });
  const flags = [...args, "-O3", "-std=c++20", "-pthread", join(SOURCES, "reference.cpp")];
  await makeSealed(executable, (draft) => run(command, [...flags, "-o", draft], options));
  return executable;
}
