import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseJson, sha256 } from "@vibeserve/shared";
import { z } from "zod";
import { readSealed, writeSealed } from "../artifact/sealed-file.ts";
import { PLATFORM } from "../platform.ts";
import type { Compiler } from "./compiler.ts";
import { ARM_FLAGS, KNOWN_BITS } from "./isa.ts";
import { tempFolder } from "../process/temp-folder.ts";

const run = promisify(execFile);
/** A first compile with zig builds its C++ library: 90 s were seen. */
const COMPILE_MS = 180_000;
const SOURCE = join(import.meta.dirname, "cpu-probe.cpp");

export interface CpuFeatures {
  readonly bits: readonly string[];
  /** "cpuid": asked the processor and the kernel. "cpuinfo": the kernel's list of flags, where there is no compiler; it does not know whether tiles are permitted.
   * "architecture": what every processor of this architecture has, on a system that lists no flags (macOS). */
  readonly source: "cpuid" | "cpuinfo" | "architecture";
}

const Cached = z.strictObject({ bits: z.array(z.string()) });

/**
 * Compiles the probe and runs it. The answer is kept in `cacheDir` for this boot, this compiler and this source: compiling takes most of a second, and a
 * processor does not change under a running kernel.
 */
export async function probeCpu(compiler: Compiler | null, cacheDir: string, { name: system } = PLATFORM): Promise<CpuFeatures> {
  if (system !== "linux") return { bits: process.arch === "arm64" ? ["neon"] : [], source: "architecture" };
  if (compiler === null) return { bits: flagsOfCpuinfo(readFileSync("/proc/cpuinfo", "utf8")), source: "cpuinfo" };
  const source = await readFile(SOURCE, "utf8");
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const file = join(cacheDir, `cpu-${sha256(`${boot}\n${compiler.digest}\n${source}`).slice(0, 16)}.json`);
  const known = Cached.safeParse(parseJson((await readSealed(file))?.toString() ?? ""));
  if (known.success) return { bits: known.data.bits, source: "cpuid" };
  await mkdir(cacheDir, { recursive: true, mode: 0o700 });
  const bits = await compileAndRun(compiler, cacheDir);
  await writeSealed(file, JSON.stringify({ bits }));
  return { bits, source: "cpuid" };
}

async function compileAndRun(compiler: Compiler, cacheDir: string): Promise<string[]> {
  await using temporary = await tempFolder("probe-", cacheDir);
  const dir = temporary.path;
  const [program = "", ...words] = compiler.argv;
  const binary = join(dir, "cpu-probe");
  await run(program, [...words, "-std=c++20", "-O1", SOURCE, "-o", binary], { timeout: COMPILE_MS });
  const { stdout } = await run(binary, [], { timeout: 10_000 });
  return z.array(z.string()).parse(parseJson(stdout));
}

/** x86's "flags" or arm64's "Features" of the first processor. */
export function flagsOfCpuinfo(cpuinfo: string): string[] {
  const flags = new Set(/^(?:flags|Features)\s*:\s*(.*)$/m.exec(cpuinfo)?.[1]?.split(/\s+/) ?? []);
  const arm = Object.entries(ARM_FLAGS)
    .filter(([flag]) => flags.has(flag))
    .map(([, bit]) => bit);
  return [...KNOWN_BITS.filter((bit) => flags.has(bit)), ...arm];
}
