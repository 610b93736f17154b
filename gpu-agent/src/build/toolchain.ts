import { chmod, writeFile } from "node:fs/promises";
import { canonicalJson, sha256, type Arch, type BuilderInfo, type BuildTarget } from "@vibeserve/shared";
import type { Compiler } from "../probe/compiler.ts";
import { JobError } from "../worker/job-error.ts";
import type { Needs } from "./library-needs.ts";

/** A compiler of device code, found by trying it. */
export interface GpuCompiler {
  /** The variable in which a build finds it: "NVCC", "HIPCXX". */
  readonly variable: "NVCC" | "HIPCXX";
  /** Words of the command, with those that name the architecture. */
  readonly argv: readonly string[];
  readonly digest: string;
  readonly mounts: readonly string[];
}

/** What a builder can compile for machines other than its own. */
export interface Farm {
  /** This agent's own processors, for which its own compiler is right as it is; null: it measures nothing. */
  readonly own: BuildTarget | null;
  readonly compilers: ReadonlyMap<Arch, Compiler & { readonly libc: string | null }>;
  /** By architecture. */
  readonly gpus: ReadonlyMap<string, GpuCompiler>;
  /** Architectures of this agent's own accelerators: what it builds for them finds device compilers by itself, as where it builds for itself alone. */
  readonly accelerators: ReadonlySet<string>;
  /** What this machine's libraries offer to builds from elsewhere. */
  readonly offered: Needs;
}

/** How one build is compiled. */
export interface Toolchain {
  /** Its digest is that of all that decides what comes out. */
  readonly compiler: Compiler;
  readonly env: Readonly<Record<string, string>>;
  /** What stands for `-march=native`; null: itself. */
  readonly native: readonly string[] | null;
}

export const builderInfo = ({ compilers, gpus }: Farm): BuilderInfo => ({
  compilers: [...compilers].map(([arch, { digest, libc }]) => ({ arch, digest, libc })),
  gpus: [...gpus.keys()],
});

/**
 * The agent's own compiler as it is for its own processors; for another target, the compiler of its architecture, to which "native" means that target. Code that
 * names no instructions comes out the same either way. Throws JobError device `no-compiler`.
 */
export function toolchainFor(own: Compiler | null, farm: Farm | undefined, target: BuildTarget | undefined): Toolchain {
  if (target === undefined || (farm?.own && canonicalJson(farm.own) === canonicalJson(target))) {
    if (own === null) throw new JobError("device", "no-compiler", "no C++ compiler was found on this agent");
    const [gpu, ...others] = farm?.accelerators ?? [];
    return { compiler: own, env: gpu !== undefined && others.length === 0 ? { GPU_ARCH: gpu } : {}, native: null };
  }
  const compiler = farm?.compilers.get(target.arch);
  if (!compiler) throw new JobError("device", "no-compiler", `no C++ compiler for ${target.arch} was found on this agent`);
  const native = [`-march=${target.march}`, ...target.more];
  const found = target.gpu === null ? null : farm?.gpus.get(target.gpu);
  const gpu = found ?? (target.gpu !== null && farm?.accelerators.has(target.gpu) ? null : found);
  if (gpu === undefined) throw new JobError("device", "no-compiler", `no compiler for ${String(target.gpu)} was found on this agent`);
  return {
    compiler: {
      ...compiler,
      digest: sha256(canonicalJson([compiler.digest, native, gpu?.digest ?? null])),
      mounts: [...new Set([...compiler.mounts, ...(gpu?.mounts ?? [])])],
    },
    env: {
      MARCH: target.march,
      ...(target.gpu === null ? {} : { GPU_ARCH: target.gpu }),
      ...(gpu ? { [gpu.variable]: gpu.argv.join(" ") } : {}),
    },
    native,
  };
}

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

/** A compiler command in which this machine's own processor has no meaning. */
export async function writeWrapper(path: string, compiler: Compiler, native: readonly string[]): Promise<void> {
  await writeFile(
    path,
    [
      "#!/bin/sh",
      "for arg do",
      "  shift",
      "  case $arg in",
      `    -march=native | -mcpu=native) set -- "$@" ${native.map(quoted).join(" ")} ;;`,
      "    -mtune=native) ;;",
      '    *) set -- "$@" "$arg" ;;',
      "  esac",
      "done",
      `exec ${compiler.argv.map(quoted).join(" ")} "$@"`,
      "",
    ].join("\n"),
    { flag: "wx" },
  );
  await chmod(path, 0o755);
}
