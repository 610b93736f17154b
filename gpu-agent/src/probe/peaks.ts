import { execFile } from "node:child_process";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseJson, sha256, type Device } from "@vibeserve/shared";
import { z } from "zod";
import { makeSealed, readSealed, writeSealed } from "../artifact/sealed-file.ts";
import type { Compiler } from "./compiler.ts";
import type { Topology } from "./cpu-topology.ts";

export type Peaks = NonNullable<Device["peaks"]>;

const run = promisify(execFile);
const SOURCE = join(import.meta.dirname, "peaks.cpp");
/** zig may compile its C++ library first: 90 s were seen. */
const COMPILE_MS = 180_000;
/** It takes under 2 s on a machine of its own. */
const RUN_MS = 30_000;
/** Several times the largest last-level cache that two processors see; a small machine gives an eighth of its memory. */
const BLOCK_MIB = 512;
const Measured = z.strictObject({ memoryGBs: z.number().positive(), gops: z.number().positive() });

/** The fastest arithmetic that these bits allow, by the names that peaks.cpp knows. */
export function peakType(bits: readonly string[]): string {
  const has = (...names: string[]): boolean => names.every((n) => bits.includes(n));
  if (has("amx_tile", "amx_int8", "avx512f")) return "int8-amx";
  if (has("amx_tile", "amx_bf16", "avx512f")) return "bf16-amx";
  if (has("avx512f", "avx512_vnni")) return "int8-avx512-vnni";
  if (has("avx512f", "avx512bw")) return "f32-avx512";
  return has("avx2") ? "int8-avx2" : "f32";
}

export interface PeakDeps {
  readonly compiler: Compiler | null;
  /** The cache that this machine's agents share. */
  readonly cacheDir: string;
  readonly topology: Topology;
  readonly bits: readonly string[];
  /** Runs what compiles and measures when nobody else does; null: it was not run. Absent: the machine is the caller's. */
  readonly alone?: <T>(work: () => Promise<T>) => Promise<T | null>;
}

/**
 * What this machine's processors can do at the most: measured once by a small program (a compile of a second or two, then under 2 s) and kept for this
 * processor, its bits, their number, the compiler and the source. `again`: measure anew, where the machine is known to be quiet, and keep the larger value
 * of each: whatever disturbs can only lower it. Null, never an error, where there is no compiler or it does not work out: an agent goes without.
 */
export async function measurePeaks(deps: PeakDeps, again = false): Promise<Peaks | null> {
  const { compiler, cacheDir, topology, bits } = deps;
  if (compiler === null) return null;
  try {
    const folder = join(cacheDir, "peaks");
    const keyOf = (...parts: unknown[]): string => sha256(JSON.stringify(parts)).slice(0, 24);
    const program = join(folder, keyOf(compiler.digest, await readFile(SOURCE, "utf8")));
    const record = `${program}-${keyOf(topology.model, [...bits].sort(), topology.cpus.length)}.json`;
    const type = peakType(bits);
    const known = Measured.safeParse(parseJson((await readSealed(record))?.toString() ?? "")).data ?? null;
    if (known !== null && !again) return { ...known, type };
    await mkdir(folder, { recursive: true });
    const measure = async (): Promise<string> => {
      const [command = "", ...words] = compiler.argv;
      const flags = [...words, "-std=c++20", "-O3", "-pthread", SOURCE];
      if ((await readSealed(program)) === null)
        await makeSealed(program, (draft) => run(command, [...flags, "-o", draft], { timeout: COMPILE_MS }));
      const mib = Math.max(16, Math.min(BLOCK_MIB, Math.floor(topology.memBytes / 8 / 2 ** 20)));
      return (await run(program, [type, String(mib), ...topology.cpus.map(String)], { timeout: RUN_MS })).stdout;
    };
    const found = Measured.parse(JSON.parse((await (deps.alone ?? ((work) => work()))(measure)) ?? ""));
    const most = {
      memoryGBs: Math.max(found.memoryGBs, known?.memoryGBs ?? 0),
      gops: Math.max(found.gops, known?.gops ?? 0),
    };
    await writeSealed(record, JSON.stringify(most));
    return { ...most, type };
  } catch {
    return null;
  }
}
