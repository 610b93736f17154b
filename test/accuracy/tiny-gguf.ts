import { writeFileSync } from "node:fs";
import { createRng, type Rng } from "../../shared/src/index.ts";
import type { Gguf, GgufValue } from "../../gpu-agent/src/tokenizer/index.ts";

/** A random Llama of a size at which a check takes a second. */
export interface TinyShape {
  readonly dim: number;
  readonly ffn: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly layers: number;
  readonly vocab: number;
}
export interface TinyTensor {
  readonly name: string;
  readonly cols: number;
  readonly rows: number;
  /** The values that the file's bytes stand for, row by row. */
  readonly values: Float32Array;
}
type Format = "F32" | "F16" | "Q4_0" | "Q4_1" | "Q8_0";
const TYPE: Record<Format, number> = { F32: 0, F16: 1, Q4_0: 2, Q4_1: 3, Q8_0: 8 };

/**
 * Writes the file and returns its tensors as any reader must see them. `text`: a GGUF whose tokenizer is copied, cut to the first `shape.vocab` tokens: a
 * BPE vocabulary grows merge by merge, so its beginning is a vocabulary too.
 */
export function writeTinyGguf(path: string, shape: TinyShape, seed: string, text?: Gguf): Map<string, TinyTensor> {
  const rng = createRng(seed);
  const headDim = shape.dim / shape.heads;
  const kv = shape.kvHeads * headDim;
  const tensors = new Map<string, TinyTensor & { bytes: Buffer; type: number }>();
  const matrix = (name: string, cols: number, rows: number, format: Format, scale: number): void => {
    const parts = Array.from({ length: rows }, () => encodeRow(rng, cols, format, scale));
    const values = new Float32Array(cols * rows);
    parts.forEach((p, r) => values.set(p.values, r * cols));
    tensors.set(name, { name, cols, rows, values, bytes: Buffer.concat(parts.map((p) => p.bytes)), type: TYPE[format] });
  };
  const norm = (name: string): void => {
    const values = Float32Array.from({ length: shape.dim }, () => 0.7 + 0.6 * rng.next());
    tensors.set(name, { name, cols: shape.dim, rows: 0, values, bytes: Buffer.from(values.buffer), type: 0 });
  };
  matrix("token_embd.weight", shape.dim, shape.vocab, "Q8_0", 1);
  for (let l = 0; l < shape.layers; l++) {
    const at = `blk.${l}.`;
    norm(`${at}attn_norm.weight`);
    norm(`${at}ffn_norm.weight`);
    matrix(`${at}attn_q.weight`, shape.dim, shape.dim, "Q4_1", 0.3);
    matrix(`${at}attn_k.weight`, shape.dim, kv, "Q4_0", 0.3);
    matrix(`${at}attn_v.weight`, shape.dim, kv, "F16", 0.4);
    matrix(`${at}attn_output.weight`, shape.dim, shape.dim, "F32", 0.4);
    matrix(`${at}ffn_gate.weight`, shape.dim, shape.ffn, "Q4_1", 0.3);
    matrix(`${at}ffn_up.weight`, shape.dim, shape.ffn, "Q8_0", 0.3);
    matrix(`${at}ffn_down.weight`, shape.ffn, shape.dim, "Q4_1", 0.3);
  }
  norm("output_norm.weight");
  matrix("output.weight", shape.dim, shape.vocab, "Q8_0", 3 / Math.sqrt(shape.dim));
  const own: [string, GgufValue][] = [
    ["general.architecture", "llama"],
    ["llama.block_count", shape.layers],
    ["llama.context_length", 4096],
    ["llama.embedding_length", shape.dim],
    ["llama.feed_forward_length", shape.ffn],
    ["llama.attention.head_count", shape.heads],
    ["llama.attention.head_count_kv", shape.kvHeads],
    ["llama.rope.freq_base", 10_000],
    ["llama.attention.layer_norm_rms_epsilon", 1e-5],
  ];
  const tokenizer = text ? beginningOf(text, shape.vocab) : [];
  writeFileSync(path, fileOf([...own, ...tokenizer], [...tensors.values()]));
  return tensors;
}

function beginningOf({ metadata }: Gguf, vocab: number): [string, GgufValue][] {
  const tokens = metadata.get("tokenizer.ggml.tokens") as readonly string[];
  const known = new Set(tokens.slice(0, vocab));
  return [...metadata].flatMap(([key, v]): [string, GgufValue][] => {
    if (!key.startsWith("tokenizer.")) return [];
    if (key === "tokenizer.ggml.merges") return [[key, (v as readonly string[]).filter((m) => known.has(m.replace(" ", "")))]];
    return [[key, Array.isArray(v) ? (v.slice(0, vocab) as string[]) : v]];
  });
}

/** Float32 → half, exact for the values made below, else rounded to nearest. */
function halfOf(value: number): { bits: number; value: number } {
  if (value === 0) return { bits: 0, value: 0 };
  const sign = value < 0 ? 0x8000 : 0;
  const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(value))));
  const fraction = Math.round((Math.abs(value) / 2 ** exponent) * 1024);
  const bits = fraction < 1024 ? fraction : ((exponent + 15) << 10) + (fraction - 1024);
  return { bits: sign | bits, value: Math.sign(value) * fraction * 2 ** (exponent - 10) };
}

function encodeRow(rng: Rng, cols: number, format: Format, scale: number): { values: Float32Array; bytes: Buffer } {
  const values = new Float32Array(cols);
  const bytes: number[] = [];
  const u16 = (n: number): void => void bytes.push(n & 255, n >> 8);
  if (format === "F32" || format === "F16") {
    for (let i = 0; i < cols; i++) {
      const half = halfOf(scale * rng.normal());
      values[i] = half.value;
      if (format === "F16") u16(half.bits);
    }
    return { values, bytes: format === "F16" ? Buffer.from(bytes) : Buffer.from(values.slice().buffer) };
  }
  for (let block = 0; block < cols; block += 32) {
    // Uniform over the levels has a standard deviation of 4.6 (16 levels) or 73 (255 levels) steps.
    const d = halfOf((scale * (0.7 + 0.6 * rng.next())) / (format === "Q8_0" ? 73 : 4.6));
    const m = halfOf(-7.5 * d.value);
    u16(d.bits);
    if (format === "Q4_1") u16(m.bits);
    if (format === "Q8_0") {
      for (let i = 0; i < 32; i++) {
        const q = rng.int(255) - 127;
        bytes.push(q & 255);
        values[block + i] = Math.fround(d.value * q);
      }
      continue;
    }
    for (let i = 0; i < 16; i++) {
      const [low, high] = [rng.int(16), rng.int(16)];
      bytes.push(low | (high << 4));
      const value = (q: number): number =>
        format === "Q4_0" ? Math.fround(d.value * (q - 8)) : Math.fround(Math.fround(d.value * q) + m.value);
      values[block + i] = value(low);
      values[block + i + 16] = value(high);
    }
  }
  return { values, bytes: Buffer.from(bytes) };
}

function fileOf(metadata: readonly [string, GgufValue][], tensors: readonly (TinyTensor & { bytes: Buffer; type: number })[]): Buffer {
  const u32 = (n: number): Buffer => Buffer.from(Uint32Array.of(n).buffer);
  const u64 = (n: number): Buffer => Buffer.from(BigUint64Array.of(BigInt(n)).buffer);
  const str = (s: string): Buffer => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)]);
  const value = (v: GgufValue): Buffer => {
    if (typeof v === "string") return Buffer.concat([u32(8), str(v)]);
    if (typeof v === "boolean") return Buffer.concat([u32(7), Buffer.from([v ? 1 : 0])]);
    if (typeof v === "number")
      return Number.isInteger(v) ? Buffer.concat([u32(4), u32(v)]) : Buffer.concat([u32(6), Buffer.from(Float32Array.of(v).buffer)]);
    const strings = typeof v[0] === "string";
    return Buffer.concat([u32(9), u32(strings ? 8 : 5), u64(v.length), ...v.map((e) => (typeof e === "string" ? str(e) : u32(e)))]);
  };
  const pad = (n: number): number => (32 - (n % 32)) % 32;
  let offset = 0;
  const table = tensors.map((t) => {
    const shape = t.rows === 0 ? [t.cols] : [t.cols, t.rows];
    const entry = Buffer.concat([str(t.name), u32(shape.length), ...shape.map(u64), u32(t.type), u64(offset)]);
    offset += t.bytes.length + pad(t.bytes.length);
    return entry;
  });
  const head = Buffer.concat([
    Buffer.from("GGUF"),
    u32(3),
    u64(tensors.length),
    u64(metadata.length),
    ...metadata.map(([key, v]) => Buffer.concat([str(key), value(v)])),
    ...table,
  ]);
  return Buffer.concat([
    head,
    Buffer.alloc(pad(head.length)),
    ...tensors.map((t) => Buffer.concat([t.bytes, Buffer.alloc(pad(t.bytes.length))])),
  ]);
}
