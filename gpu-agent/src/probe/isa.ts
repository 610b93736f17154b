/**
 * The best family of kernels that these bits allow, from the best down. One word, for a pool's name and for reports; kernels themselves are chosen by the
 * single bits.
 */
export function isaOf(bits: readonly string[]): string {
  const has = (...names: string[]): boolean => names.every((n) => bits.includes(n));
  if (has("amx_tile", "amx_bf16", "avx512f")) return "amx";
  if (has("avx512f", "avx512bw", "avx512vl", "avx512_vnni")) return "avx512-vnni";
  if (has("avx512f", "avx512bw", "avx512vl")) return "avx512";
  if (has("avx2", "fma", "f16c")) return "avx2";
  if (has("neon")) return "neon";
  return "scalar";
}

/** Every name that the probe can print: what /proc/cpuinfo's flags are reduced to where no compiler is found. */
export const KNOWN_BITS = [
  "avx",
  "f16c",
  "fma",
  "avx2",
  "bmi2",
  "avx_vnni",
  "avx512f",
  "avx512dq",
  "avx512bw",
  "avx512vl",
  "avx512vbmi",
  "avx512_vnni",
  "avx512_bf16",
  "avx512_fp16",
  "amx_tile",
  "amx_int8",
  "amx_bf16",
] as const;

/** arm64's names in /proc/cpuinfo → ours. */
export const ARM_FLAGS: Readonly<Record<string, string>> = {
  asimd: "neon",
  asimdhp: "fp16",
  asimddp: "dotprod",
  sve: "sve",
  sve2: "sve2",
  i8mm: "i8mm",
  bf16: "bf16",
};
