import { sha256 } from "@vibeserve/shared";
import { ConfigError } from "../config-error.ts";
import { findTool } from "../sandbox/probe-sandbox.ts";
import type { Compiler } from "./compiler.ts";
import type { CpuFeatures } from "./cpu-features.ts";
import { isaOf } from "./isa.ts";

/** A level of the x86-64 psABI: the word after -march=. */
export type IsaLevel = "x86-64-v3" | "x86-64-v2";

/** Best first, with what the probe knows of each. SSE4.2, of which v2 is made, is no bit of the probe's: no stack asks for it. */
const LEVELS: Readonly<Record<IsaLevel, readonly string[]>> = {
  "x86-64-v3": ["avx", "f16c", "fma", "avx2", "bmi2"],
  "x86-64-v2": [],
};

/** What holds an agent to a level below its machine's. */
export interface IsaMask {
  readonly level: IsaLevel;
  readonly features: CpuFeatures;
  /** The agent's compiler with -march=LEVEL, and a digest of its own: no build of another pool is ever taken for one of this. */
  readonly compiler: Compiler;
  /** Disassembles what was built. */
  readonly objdump: string;
}

/** The level that is asked for; "next": the best one whose family of kernels is below the machine's. Throws ConfigError with what is the matter and what to do. */
export function levelOf(wanted: IsaLevel | "next", bits: readonly string[], arch: string = process.arch): IsaLevel {
  if (arch !== "x64") throw new ConfigError(`gpu-agent: --isa-mask: ${arch} has no levels to mask to; x86-64 has`);
  const names = Object.keys(LEVELS) as IsaLevel[];
  const has = (level: IsaLevel): boolean => LEVELS[level].every((bit) => bits.includes(bit));
  const below = names.filter((level) => has(level) && LEVELS[level].length < bits.length);
  const level = wanted === "next" ? below.find((l) => isaOf(LEVELS[l]) !== isaOf(bits)) : below.find((l) => l === wanted);
  if (level !== undefined) return level;
  throw new ConfigError(
    `gpu-agent: --isa-mask ${wanted}: this machine (${isaOf(bits)}) can't be masked to it; levels below its own: ${below.join(", ") || "none"}`,
  );
}

/** Throws ConfigError where this machine, its compiler or its tools can't keep the mask. */
export function maskOf(wanted: IsaLevel | "next", host: CpuFeatures, compiler: Compiler | null): IsaMask {
  const level = levelOf(wanted, host.bits);
  const objdump = findTool("objdump");
  if (objdump === null)
    throw new ConfigError("gpu-agent: --isa-mask: objdump is not installed, so what was built can't be checked: install binutils");
  if (compiler === null) throw new ConfigError("gpu-agent: --isa-mask: no C++ compiler was found, and what nobody builds needs no mask");
  const march = `-march=${level}`;
  return {
    level,
    features: { bits: LEVELS[level].filter((bit) => host.bits.includes(bit)), source: host.source },
    compiler: { ...compiler, argv: [...compiler.argv, march], digest: sha256(`${compiler.digest} ${march}`) },
    objdump,
  };
}
