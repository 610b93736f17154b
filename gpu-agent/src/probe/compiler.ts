import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import { dirname, isAbsolute } from "node:path";
import { promisify } from "node:util";
import { hashFile } from "../artifact/file-digest.ts";
import { PLATFORM } from "../platform.ts";
import { findTool } from "../sandbox/probe-sandbox.ts";

const run = promisify(execFile);
const VERSION_MS = 30_000;

/** A C++20 compiler as the sandbox can run it. */
export interface Compiler {
  readonly name: "gcc" | "clang";
  /** Words of the command, the first an absolute path; joined by spaces they are `${CXX}`. */
  readonly argv: readonly string[];
  readonly version: string;
  /** sha256 over the programs that make up the compiler: the toolchain's part of a build's cache key. */
  readonly digest: string;
  /** Folders outside the system's own that it needs, read-only. */
  readonly mounts: readonly string[];
}

const SYSTEM_COMPILERS = ["g++", "clang++", "c++"];

/**
 * The compiler of `cxx` ("g++", "/opt/llvm/bin/clang++", a wrapper of `zig c++`), or the system's first. Null where there is none that runs; then
 * nothing can be built here. Throws when `cxx` is given and does not run.
 */
export async function findCompiler(cxx: string | null, { name: platform } = PLATFORM): Promise<Compiler | null> {
  if (cxx !== null) return describe(absoluteWords(cxx.trim().split(/\s+/)));
  if (platform === "darwin") return appleCompiler();
  for (const name of SYSTEM_COMPILERS) {
    const path = findTool(name);
    if (path !== null) return describe([path]);
  }
  return null;
}

/**
 * The compiler of Apple's command-line tools or of Xcode, with its SDK. What lies in /usr/bin under its name only looks for it, by files and a cache that no sandbox
 * shows. Null where neither is installed.
 */
export async function appleCompiler(xcrun = "/usr/bin/xcrun"): Promise<Compiler | null> {
  const ask = async (...args: string[]): Promise<string> => (await run(xcrun, args, { timeout: VERSION_MS })).stdout.trim();
  let found: { program: string; sdk: string };
  try {
    found = { program: await ask("--find", "clang++"), sdk: await ask("--show-sdk-path") };
  } catch {
    return null;
  }
  const compiler = await describe([found.program, "-isysroot", found.sdk]);
  return { ...compiler, mounts: [...new Set([...compiler.mounts, found.sdk])] };
}

/** A bare name is looked up in the system's folders, not on PATH: the sandbox has no other. */
function absoluteWords(words: readonly string[]): string[] {
  const [program = "", ...rest] = words;
  const path = isAbsolute(program) ? program : findTool(program);
  if (path === null)
    throw new Error(`the compiler "${words.join(" ")}" was not found: no ${program} in the system's folders; give an absolute path`);
  return [path, ...rest];
}

async function describe(argv: readonly string[]): Promise<Compiler> {
  const [program = "", ...rest] = argv;
  const { stdout } = await run(program, [...rest, "--version"], { timeout: VERSION_MS });
  const first = stdout.split("\n")[0] ?? "";
  const version = /\d+\.\d+(\.\d+)?/.exec(first)?.[0] ?? first.slice(0, 40);
  const name = /clang/i.test(stdout) ? "clang" : "gcc";
  const parts = [realpathSync(program), ...(name === "gcc" ? await gccParts(program) : [])];
  // The whole text, not only the version: a wrapper's compiler shows in it (zig's names its folder and target).
  const hash = createHash("sha256").update(`${name} ${argv.join(" ")}\n${stdout}\n`);
  for (const part of parts) await hashFile(hash, part);
  return { name, argv, version, digest: hash.digest("hex"), mounts: outsideFolders(parts) };
}

/** The programs behind g++ that decide what comes out. */
async function gccParts(program: string): Promise<string[]> {
  const paths: string[] = [];
  for (const part of ["cc1plus", "as", "ld"]) {
    const { stdout } = await run(program, [`-print-prog-name=${part}`], { timeout: VERSION_MS });
    const found = isAbsolute(stdout.trim()) ? stdout.trim() : findTool(stdout.trim());
    if (found !== null) paths.push(realpathSync(found));
  }
  return paths;
}

/** A compiler in /opt or in a user's cache brings its headers and libraries along: beside its bin/, or in the folder that it stands in. */
export function outsideFolders(parts: readonly string[]): string[] {
  const outside = parts.filter((p) => !/^\/(usr|bin|lib|lib64)\//.test(p)).map(dirname);
  return [...new Set(outside.map((dir) => (dir.endsWith("/bin") ? dirname(dir) : dir)))];
}
