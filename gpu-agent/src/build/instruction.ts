import type { IsaLevel } from "../probe/isa-mask.ts";

/** How an instruction of x86-64 is encoded: what decides which processors know it. */
export type Encoding = "legacy" | "vex" | "evex" | "other";

const PREFIXES = new Set([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]);

/** By its bytes, in 64-bit mode. other: XOP (AMD, before 2017) or REX2 (APX): of no level. */
export function encodingOf(bytes: readonly number[]): Encoding {
  const at = bytes.findIndex((b) => !PREFIXES.has(b));
  const [first, second = 0] = bytes.slice(at);
  if (first === 0x62) return "evex";
  if (first === 0xc4 || first === 0xc5) return "vex";
  if (first === 0xd5 || (first === 0x8f && (second & 0x1f) >= 8)) return "other";
  return "legacy";
}

/** VEX-encoded, and of a later level: mask registers (AVX-512), tiles (AMX), VNNI, IFMA, NE-CONVERT, SHA512, SM3, SM4, GFNI, FMA4; AES and CLMUL on ymm. */
const AFTER_V3 =
  /^(\{vex3?\} )*(k(mov|or|ortest|and|andn|xor|xnor|not|add|test|unpck|shift)|tile|ldtilecfg|sttilecfg|t2rpntlv|ttdp|ttransp|ttmm|tconj|tcmm|tdp|tmm|vpdp|vpmadd52|vcvtne|vbcstne|vsha512|vsm[34]|vgf2p8|vfn?m(add|sub|addsub|subadd)[ps][sd]\b|v(aes|pclmul).*%ymm)/;
/** Of v3, in the old encoding. TZCNT is left out: it is BSF with a prefix that older processors ignore, and compilers put it where both do. */
const V3_LEGACY = /^(lzcnt|movbe)/;

/** Does this instruction belong to a later level? `text` in AT&T's syntax, as objdump prints it. What no level has (AES-NI, SHA, RDRAND, XGETBV) is left alone. */
export function isBeyond(level: IsaLevel, encoding: Encoding, text: string): boolean {
  if (encoding === "evex" || encoding === "other") return !text.startsWith("(bad)");
  if (level === "x86-64-v3") return encoding === "vex" && AFTER_V3.test(text);
  return (encoding === "vex" && !text.startsWith("(bad)")) || V3_LEGACY.test(text);
}
