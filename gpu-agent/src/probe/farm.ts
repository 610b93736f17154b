import { execFile } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { buildTargetOf, sha256, type Arch, type Device } from "@vibeserve/shared";
import { libcOf, namedVersions, type Needs } from "../build/library-needs.ts";
import type { Farm, GpuCompiler } from "../build/toolchain.ts";
import { digestOfFile } from "../artifact/file-digest.ts";
import { PLATFORM, type Platform } from "../platform.ts";
import { findTool } from "../sandbox/probe-sandbox.ts";
import { findCompiler, outsideFolders, type Compiler } from "./compiler.ts";
import { tempFolder } from "../process/temp-folder.ts";

const run = promisify(execFile);
/** A first nvcc on a busy machine reads hundreds of MB from disk. */
const TRIAL_MS = 120_000;

/** Debian's and Fedora's names for GCC that compiles for another architecture, and where its C library lies. */
const CROSS: Readonly<Record<Arch, { cxx: string; libc: string }>> = {
  arm64: { cxx: "aarch64-linux-gnu-g++", libc: "/usr/aarch64-linux-gnu/lib/libc.so.6" },
  x64: { cxx: "x86_64-linux-gnu-g++", libc: "/usr/x86_64-linux-gnu/lib/libc.so.6" },
};

const CUDA_ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a"];
const HIP_ARCHITECTURES = ["gfx90a", "gfx942", "gfx950"];
const CUDA = "/usr/local/cuda/bin/nvcc";
const DEVICE_ONLY = ["--cuda-device-only", "--no-gpu-bundle-output"];
const KERNEL = "__attribute__((global)) void k(float* a) { a[0] = 1; }\n";

export interface FarmOptions {
  readonly compiler: Compiler | null;
  /** Of this machine; null: the agent only builds, so that nothing is its own. */
  readonly device: Device | null;
  /** Its accelerators. */
  readonly accelerators: readonly Device[];
  /** What else it can compile for is looked for, which takes seconds. */
  readonly all: boolean;
  /** What this machine's libraries offer. */
  readonly offered: Needs;
  /** Null: the system's. */
  readonly nvcc: string | null;
  readonly hipCxx: string | null;
  /** Default: this process's. */
  readonly platform?: Platform;
}

/** What this machine compiles for others: for its own architecture always. Every compiler has compiled something here before it is named. */
export async function findFarm(options: FarmOptions): Promise<Farm> {
  const { offered } = options;
  const compilers = new Map<Arch, Compiler & { libc: string | null }>();
  // What is compiled on macOS runs on no Linux, and targets are Linux.
  const native =
    (options.platform ?? PLATFORM).name === "linux" && (process.arch === "x64" || process.arch === "arm64") ? process.arch : null;
  if (options.compiler && native) compilers.set(native, { ...options.compiler, libc: libcOf(offered) });
  const own = options.device && buildTargetOf(options.device);
  const accelerators = new Set(options.accelerators.map(({ isa }) => isa));
  if (!options.all) return { own, compilers, gpus: new Map(), accelerators, offered };
  for (const arch of ["x64", "arm64"] as const) {
    const path = arch === native ? null : findTool(CROSS[arch].cxx);
    const found = path && (await compiles([path, "-x", "c++"], "int f() { return 1; }\n")) ? await findCompiler(path) : null;
    if (found) compilers.set(arch, { ...found, libc: libcOf(await namedVersions([CROSS[arch].libc])) });
  }
  const gpus = new Map<string, GpuCompiler>();
  const digests = new Map<string, Promise<string>>();
  const nvcc = options.nvcc ?? findTool("nvcc") ?? (existsSync(CUDA) ? CUDA : null);
  const hip = options.hipCxx ?? findTool("clang++-19") ?? findTool("clang++");
  if (nvcc !== null)
    for (const arch of CUDA_ARCHITECTURES)
      await add(gpus, digests, arch, { variable: "NVCC", argv: [nvcc, `-arch=${arch}`] }, ["-x", "cu"]);
  if (hip !== null)
    for (const arch of HIP_ARCHITECTURES) {
      const argv = [hip, "-x", "hip", `--offload-arch=${arch}`];
      // Without ROCm's headers and device libraries a kernel of plain C++ still compiles.
      const bare = { variable: "HIPCXX", argv: [...argv, "-nogpuinc", "-nogpulib"] } as const;
      if (!(await add(gpus, digests, arch, { variable: "HIPCXX", argv }, DEVICE_ONLY))) await add(gpus, digests, arch, bare, DEVICE_ONLY);
    }
  return { own, compilers, gpus, accelerators, offered };
}

async function add(
  gpus: Map<string, GpuCompiler>,
  digests: Map<string, Promise<string>>,
  arch: string,
  { variable, argv }: Pick<GpuCompiler, "variable" | "argv">,
  more: readonly string[],
): Promise<boolean> {
  if (!(await compiles([...argv, ...more], KERNEL))) return false;
  const program = realpathSync(argv[0] ?? "");
  const known = digests.get(program) ?? versionAndDigest(program);
  digests.set(program, known);
  gpus.set(arch, { variable, argv, digest: sha256(`${argv.join(" ")}\n${await known}`), mounts: outsideFolders([program]) });
  return true;
}

/** The same for every architecture; a compiler is some 100 MB. */
async function versionAndDigest(program: string): Promise<string> {
  const { stdout } = await run(program, ["--version"], { timeout: TRIAL_MS });
  return `${stdout}\n${await digestOfFile(program)}`;
}

/** Whether it makes an object of this text. */
async function compiles(argv: readonly string[], text: string): Promise<boolean> {
  await using temporary = await tempFolder("vs-farm-");
  const dir = temporary.path;
  try {
    await writeFile(join(dir, "trial.cpp"), text);
    const [program = "", ...flags] = argv;
    await run(program, [...flags, "-c", "-o", join(dir, "trial.o"), join(dir, "trial.cpp")], { timeout: TRIAL_MS });
    return true;
  } catch {
    // It is not there, or it can't: then it is not offered.
    return false;
  }
}
