import { z } from "zod";
import type { Device } from "./device.ts";
import { ArtifactRef, Digest } from "./ids.ts";

export const Arch = z.enum(["x64", "arm64"]);
export type Arch = z.infer<typeof Arch>;
const Version = z.string().regex(/^\d+(\.\d+){1,3}$/);
/** A GPU's own word for its instructions: "sm_90a", "gfx942". */
const Gpu = z.string().regex(/^(sm_\d{2,3}a?|gfx[0-9a-f]{3,5})$/);

/** What a build is for, where a builder elsewhere may do it. On another machine than the device's, `-march=native` would mean the wrong one. */
export const BuildTarget = z.strictObject({
  arch: Arch,
  /** The word after -march=, for GCC and Clang: "x86-64-v3", "armv8.2-a+dotprod". */
  march: z.string().regex(/^[a-z0-9][a-z0-9.+-]{0,100}$/),
  /** What the processor has beyond it, as flags. */
  more: z.array(z.string().regex(/^-m[a-z0-9-]{1,30}$/)).max(16),
  /** The C library there: what is built with a later one does not start. Null: none of glibc. */
  libc: Version.nullable(),
  gpu: Gpu.nullable(),
});
export type BuildTarget = z.infer<typeof BuildTarget>;

/** What a build made, for those that did not build it: a tar of plain files in the object store. */
export const BuildOutput = z.strictObject({
  tar: ArtifactRef,
  arch: Arch,
  /** By library, the latest version of its symbols that the files may ask for: {name: "GLIBC", min: "2.34"}. */
  needs: z.array(z.strictObject({ name: z.enum(["GLIBC", "GLIBCXX", "CXXABI"]), min: Version })).max(3),
});
export type BuildOutput = z.infer<typeof BuildOutput>;

/** What an agent's builder makes for other machines' devices. */
export const BuilderInfo = z.strictObject({
  compilers: z.array(z.strictObject({ arch: Arch, digest: Digest, libc: Version.nullable() })).max(2),
  gpus: z.array(Gpu).max(16),
});
export type BuilderInfo = z.infer<typeof BuilderInfo>;

const V3 = ["avx", "f16c", "fma", "avx2", "bmi2"];
const V4 = [...V3, "avx512f", "avx512dq", "avx512bw", "avx512vl"];
const BEYOND: Readonly<Record<string, string>> = {
  avx_vnni: "-mavxvnni",
  avx512vbmi: "-mavx512vbmi",
  avx512_vnni: "-mavx512vnni",
  avx512_bf16: "-mavx512bf16",
  avx512_fp16: "-mavx512fp16",
  amx_tile: "-mamx-tile",
  amx_int8: "-mamx-int8",
  amx_bf16: "-mamx-bf16",
};
const ARM_EXTENSIONS = ["fp16", "dotprod", "sve", "sve2", "i8mm", "bf16"];

/**
 * What a build for this device is to be compiled for; null: only its own machine's builder can tell (it is masked to a level that the builder enforces, it is no
 * Linux, or it does not say enough). `host` has the processors that the device is served from, where it is an accelerator.
 */
export function buildTargetOf(device: Device, host: Device = device): BuildTarget | null {
  const { labels } = device;
  const arch = Arch.safeParse(host.labels["vibeserve.dev/arch"]);
  if (!arch.success || host.labels["vibeserve.dev/os"] !== "linux" || labels["vibeserve.dev/masked"] === "true") return null;
  const gpu = device.kind === "cpu" ? null : Gpu.safeParse(device.isa).data;
  if (gpu === undefined) return null;
  return { arch: arch.data, ...instructionsOf(arch.data, host.isaBits), libc: host.labels["vibeserve.dev/libc"] ?? null, gpu };
}

function instructionsOf(arch: Arch, bits: readonly string[]): Pick<BuildTarget, "march" | "more"> {
  if (arch === "arm64") return { march: ["armv8.2-a", ...ARM_EXTENSIONS.filter((e) => bits.includes(e))].join("+"), more: [] };
  const has = (all: readonly string[]): boolean => all.every((bit) => bits.includes(bit));
  const march = has(V4) ? "x86-64-v4" : has(V3) ? "x86-64-v3" : "x86-64-v2";
  return { march, more: march === "x86-64-v2" ? [] : bits.flatMap((bit) => BEYOND[bit] ?? []) };
}

/** Whether what the builder makes would start there. */
export function canBuildFor(builder: BuilderInfo, target: BuildTarget): boolean {
  const compiler = builder.compilers.find((c) => c.arch === target.arch);
  if (!compiler || (target.gpu !== null && !builder.gpus.includes(target.gpu))) return false;
  return compiler.libc === null || (target.libc !== null && compareVersions(compiler.libc, target.libc) <= 0);
}

/** Below 0: a is the older one. */
export function compareVersions(a: string, b: string): number {
  const [x, y] = [a, b].map((v) => v.split(".").map(Number)) as [number[], number[]];
  for (let i = 0; i < Math.max(x.length, y.length); i++) if ((x[i] ?? 0) !== (y[i] ?? 0)) return (x[i] ?? 0) - (y[i] ?? 0);
  return 0;
}
