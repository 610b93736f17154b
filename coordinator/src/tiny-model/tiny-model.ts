import { encodeGguf, type GgufTensor, type GgufValue } from "./gguf-writer.ts";
import { splitmix } from "./splitmix.ts";

/** Formats that a matrix of the tiny model can be stored in; its values are such that each holds them exactly. */
export type Format = "F32" | "F16" | "Q4_0" | "Q4_1" | "Q8_0";
const typeOf: Record<Format, number> = { F32: 0, F16: 1, Q4_0: 2, Q4_1: 3, Q8_0: 8 };

/** Shape of the tiny model: the smallest that has every part of the real one. */
export const tiny = {
  layers: 2,
  dim: 64,
  ffn: 96,
  heads: 4,
  kvHeads: 2,
  headDim: 16,
  vocab: 262,
  context: 4096,
  ropeBase: 10_000,
  eps: 1e-5,
  /** Whether levels are as often above zero as below. Where they are not, wide layers say almost the same after every token, whatever the weights. */
  centred: false,
};
type Shape = typeof tiny;

/**
 * What a campaign is tried on where no weights are: large enough that a skill has something to gain, 1.5 MB as Q4_1. Centred, since the crown's check alters
 * weights and wants to see the reference move by 0.1 nat: it moves by 0.16 to 0.28 so, and by as little as 0.006 otherwise.
 */
export const smallModel: Shape = { ...tiny, centred: true, layers: 4, dim: 256, ffn: 512, heads: 8, kvHeads: 4, headDim: 32 };

export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly values: Float64Array;
}

/** The bytes of a half-precision float that is a power of two or zero times a small integer: all that is needed here. */
function half(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  if (value !== 0) {
    const exponent = Math.floor(Math.log2(Math.abs(value)));
    const fraction = Math.round((Math.abs(value) / 2 ** exponent - 1) * 1024);
    buffer.writeUInt16LE((value < 0 ? 0x8000 : 0) | ((exponent + 15) << 10) | fraction);
  }
  return buffer;
}

function nibbles(levels: number[]): Buffer {
  return Buffer.from(Array.from({ length: 16 }, (_, i) => (levels[i] ?? 0) | ((levels[i + 16] ?? 0) << 4)));
}

function encodeBlock(values: number[], scale: number, format: Format): Buffer {
  const levels = values.map((v) => Math.round(v / scale)); // -8 … 7
  switch (format) {
    case "F32":
      return Buffer.from(new Float32Array(values).buffer);
    case "F16":
      return Buffer.concat(values.map(half));
    case "Q4_0":
      return Buffer.concat([half(scale), nibbles(levels.map((l) => l + 8))]);
    case "Q4_1":
      return Buffer.concat([half(scale), half(-8 * scale), nibbles(levels.map((l) => l + 8))]);
    case "Q8_0":
      return Buffer.concat([half(scale), Buffer.from(Int8Array.from(levels).buffer)]);
  }
}

/** The tiny model's weights by tensor name: sixteen levels a value, a power of two apart; the wider the model the smaller, so that sums stay near one. */
export function tinyWeights(seed = 1, shape: Shape = tiny): { matrices: Map<string, Matrix>; scale: number } {
  const next = splitmix(seed);
  const scale = 2 ** -(2 + Math.log2(shape.dim) / 2);
  const matrices = new Map<string, Matrix>();
  const add = (name: string, rows: number, cols: number, value: () => number) =>
    matrices.set(`${name}.weight`, { rows, cols, values: Float64Array.from({ length: rows * cols }, value) });
  const level = () => (shape.centred ? (next() % 15) - 7 : (next() % 16) - 8) * scale;
  const near1 = () => 1 + (next() % 16) / 32;
  const kv = shape.kvHeads * shape.headDim;
  // Halved for bytes from 128 on: the model then writes mostly ASCII, with broken UTF-8 now and then.
  let count = 0;
  add("token_embd", shape.vocab, shape.dim, () => {
    const id = Math.floor(count++ / shape.dim);
    return id >= 3 + 128 && id < 259 ? Math.trunc(level() / scale / 2) * scale : level();
  });
  add("output_norm", 1, shape.dim, near1);
  for (let i = 0; i < shape.layers; ++i) {
    add(`blk.${i}.attn_norm`, 1, shape.dim, near1);
    add(`blk.${i}.attn_q`, shape.dim, shape.dim, level);
    add(`blk.${i}.attn_k`, kv, shape.dim, level);
    add(`blk.${i}.attn_v`, kv, shape.dim, level);
    add(`blk.${i}.attn_output`, shape.dim, shape.dim, level);
    add(`blk.${i}.ffn_norm`, 1, shape.dim, near1);
    add(`blk.${i}.ffn_gate`, shape.ffn, shape.dim, level);
    add(`blk.${i}.ffn_up`, shape.ffn, shape.dim, level);
    add(`blk.${i}.ffn_down`, shape.dim, shape.ffn, level);
  }
  return { matrices, scale };
}

/** GPT-2's character for each byte. */
export function byteCharacters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => {
    const plain = (b > 32 && b < 127) || (b > 160 && b !== 173);
    return String.fromCharCode(plain ? b : next++);
  });
}

/** Ids 0, 1, 2: <|endoftext|>, <|im_start|>, <|im_end|> (EOS); 3 + b: byte b; 259: "he"; 260: "ll"; 261: "hell". */
export function tinyTokens(): string[] {
  return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", ...byteCharacters(), "he", "ll", "hell"];
}

export function tinyKeys(shape: Shape = tiny): Record<string, GgufValue> {
  return {
    "general.architecture": "llama",
    "llama.block_count": shape.layers,
    "llama.context_length": shape.context,
    "llama.embedding_length": shape.dim,
    "llama.feed_forward_length": shape.ffn,
    "llama.attention.head_count": shape.heads,
    "llama.attention.head_count_kv": shape.kvHeads,
    "llama.rope.dimension_count": shape.headDim,
    "llama.rope.freq_base": { float: shape.ropeBase },
    "llama.attention.layer_norm_rms_epsilon": { float: shape.eps },
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": tinyTokens(),
    "tokenizer.ggml.token_type": tinyTokens().map((_, i) => (i < 3 ? 3 : 1)),
    "tokenizer.ggml.merges": ["h e", "l l", "he ll"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
  };
}

/** The tensors of the tiny model with its matrices in `format`. */
export function tinyTensors(format: Format, seed?: number, shape?: Shape): GgufTensor[] {
  const { matrices, scale } = tinyWeights(seed, shape);
  return [...matrices].map(([name, m]) => {
    const as = m.rows === 1 ? "F32" : format;
    const blocks = Array.from({ length: m.values.length / 32 }, (_, i) =>
      encodeBlock([...m.values.subarray(32 * i, 32 * i + 32)], scale, as),
    );
    return { name, rows: m.rows, cols: m.cols, type: typeOf[as], data: Buffer.concat(blocks), vector: m.rows === 1 };
  });
}

/** A whole model file of about 120 kB as float32: real structure, random weights, thousands of tokens a second. */
export function tinyModel(format: Format = "Q4_1", seed?: number, shape?: Shape): Buffer {
  return encodeGguf(tinyKeys(shape), tinyTensors(format, seed, shape));
}
