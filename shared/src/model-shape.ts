import { z } from "zod";
import { digestOf } from "./digest.ts";
import type { Length, Workload } from "./target.ts";

/** How weights lie on disk: one GGUF file, or a Hugging Face folder (config.json, tokenizer.json, *.safetensors). */
export const ModelFormat = z.enum(["gguf", "hf"]);
export type ModelFormat = z.infer<typeof ModelFormat>;

/** mlx-8bit, mlx-4bit: groups of 64 with a scale and a bias of 16 bits each. */
export const WeightType = z.enum(["float32", "bfloat16", "float16", "mlx-8bit", "mlx-4bit"]);
export type WeightType = z.infer<typeof WeightType>;

const BITS: Readonly<Record<WeightType, number>> = { float32: 32, bfloat16: 16, float16: 16, "mlx-8bit": 8.5, "mlx-4bit": 4.5 };

/**
 * Digest of a checkpoint's folder: of [path, sha256 of the content] for every file, sorted by path in code points. Names that begin with "." (a download's own
 * bookkeeping) are to be left out by who lists them.
 */
export function folderDigest(files: readonly (readonly [path: string, sha256: string])[]): string {
  return digestOf({ v: 1, files: [...files].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)) });
}

const n = z.int().min(1);
/** The members of a config.json that decide sizes; others are let pass. Families: Llama, Qwen3, Olmo-Hybrid (gated delta net beside full attention). */
export const ModelShape = z
  .object({
    model_type: z.enum(["llama", "qwen3", "olmo_hybrid"]),
    vocab_size: n,
    hidden_size: n,
    intermediate_size: n,
    num_hidden_layers: n,
    num_attention_heads: n,
    num_key_value_heads: n.nullish(),
    head_dim: n.nullish(),
    max_position_embeddings: n,
    tie_word_embeddings: z.boolean().default(false),
    layer_types: z.array(z.enum(["full_attention", "linear_attention"])).nullish(),
    linear_num_key_heads: n.nullish(),
    linear_num_value_heads: n.nullish(),
    linear_key_head_dim: n.nullish(),
    linear_value_head_dim: n.nullish(),
    linear_conv_kernel_dim: n.default(4),
  })
  .transform((c) => {
    const heads = c.num_attention_heads;
    const keyDim = c.linear_key_head_dim ?? Math.trunc((0.75 * c.hidden_size) / (c.linear_num_key_heads ?? heads));
    const linear = c.layer_types?.filter((t) => t === "linear_attention").length ?? 0;
    return {
      type: c.model_type,
      vocab: c.vocab_size,
      hidden: c.hidden_size,
      inner: c.intermediate_size,
      heads,
      kvHeads: c.num_key_value_heads ?? heads,
      headDim: c.head_dim ?? c.hidden_size / heads,
      context: c.max_position_embeddings,
      tied: c.tie_word_embeddings,
      layers: { full: c.num_hidden_layers - linear, linear },
      delta: {
        keys: (c.linear_num_key_heads ?? heads) * keyDim,
        values: (c.linear_num_value_heads ?? heads) * (c.linear_value_head_dim ?? 2 * keyDim),
        heads: c.linear_num_value_heads ?? heads,
        keyDim,
        kernel: c.linear_conv_kernel_dim,
      },
    };
  });
export type ModelShape = z.infer<typeof ModelShape>;

/** Parameters by the modules that transformers makes for these families. */
export function parameters(s: ModelShape): number {
  const attention = 2 * s.hidden * s.headDim * (s.heads + s.kvHeads);
  const norms = { llama: 0, qwen3: 2 * s.headDim, olmo_hybrid: s.headDim * (s.heads + s.kvHeads) }[s.type];
  const rest = 3 * s.hidden * s.inner + 2 * s.hidden;
  const d = s.delta;
  // Queries, keys, values, gate, output; a and b of each head; short convolutions; A_log, dt_bias and the output's norm.
  const delta =
    s.hidden * (2 * d.keys + 3 * d.values) + 2 * s.hidden * d.heads + d.kernel * (2 * d.keys + d.values) + 2 * d.heads + d.values / d.heads;
  const matrices = s.vocab * s.hidden * (s.tied ? 1 : 2);
  return matrices + s.hidden + s.layers.full * (attention + norms + rest) + s.layers.linear * (delta + rest);
}

export const weightBytes = (s: ModelShape, type: WeightType): number => (parameters(s) * BITS[type]) / 8;
/** Keys and values of one position, 16 bits each, in the layers that keep them. */
const kvBytesPerToken = (s: ModelShape): number => 2 * s.layers.full * s.kvHeads * s.headDim * 2;
/** Recurrent state of one sequence (float32) and its short convolutions' last inputs (16 bits). */
const stateBytes = (s: ModelShape): number =>
  s.layers.linear * (4 * s.delta.keyDim * s.delta.values + 2 * (s.delta.kernel - 1) * (2 * s.delta.keys + s.delta.values));

/** Time between tokens that an open loop's concurrency is reckoned with (Little's law); one that users still read as fluent. */
const OPEN_LOOP_TOKEN_S = 0.05;
/** Positions of one prefill step, as engines chunk them. */
const CHUNK = 2048;
/** Runtime, workspaces, allocator. */
const RUNTIME_BYTES = 1.5 * 2 ** 30;

const longest = (l: Length): number => (l.distribution === "fixed" ? l.tokens : l.max);

export interface FitItem {
  readonly what: string;
  /** The arithmetic, for a reader. */
  readonly how: string;
  readonly bytes: number;
}
export interface FitReport {
  readonly items: readonly FitItem[];
  readonly bytes: number;
  readonly deviceBytes: number;
  readonly ok: boolean;
  /** What else the reader has to know. */
  readonly notes: readonly string[];
}

/** Whether weights, caches and activations of this workload fit the device, by arithmetic alone. A shared prefix is counted once. */
export function fitOf(
  s: ModelShape,
  given: {
    readonly weights: WeightType;
    readonly deviceMiB: number;
    readonly draft?: { readonly shape: ModelShape; readonly weights: WeightType };
  },
  w: Workload,
): FitReport {
  const [prompt, out, prefix] = [longest(w.prompt), longest(w.output), w.sharedPrefix?.tokens ?? 0];
  const open = w.arrival.process === "poisson" ? Math.ceil(w.arrival.ratePerS * out * OPEN_LOOP_TOKEN_S) : null;
  const c = w.arrival.process === "closed" ? w.arrival.concurrency : Math.min(w.requests, open ?? 1);
  const kv = kvBytesPerToken(s);
  const tokens = prefix + c * (prompt + out);
  const items: FitItem[] = [];
  const need = (what: string, bytes: number, how: string): void => void items.push({ what, how, bytes });
  need("weights", weightBytes(s, given.weights), `${parameters(s)} parameters × ${BITS[given.weights]} bits (${given.weights})`);
  const requests = `${prefix > 0 ? `${prefix} shared + ` : ""}${c} requests × (${prompt} + ${out})`;
  const head = `2 × ${s.layers.full} layers × ${s.kvHeads} heads × ${s.headDim} × 2 B`;
  need("KV cache", kv * tokens, `${head} = ${kv} B a token × (${requests})`);
  const sequences = c + (prefix > 0 ? 1 : 0);
  if (s.layers.linear > 0) need("recurrent state", stateBytes(s) * sequences, `${stateBytes(s)} B a sequence × ${sequences}`);
  if (given.draft) {
    const { shape, weights } = given.draft;
    need("draft model", weightBytes(shape, weights), `${parameters(shape)} parameters × ${BITS[weights]} bits`);
    need("draft's KV cache", kvBytesPerToken(shape) * tokens, `${kvBytesPerToken(shape)} B a token × ${tokens}`);
  }
  need(
    "activations",
    CHUNK * (4 * s.hidden + 3 * s.inner) * 2 + c * s.vocab * 4 + RUNTIME_BYTES,
    `${CHUNK} positions × (4 × ${s.hidden} + 3 × ${s.inner}) × 2 B + ${c} × ${s.vocab} logits × 4 B + 1.5 GiB for the runtime`,
  );
  const bytes = items.reduce((sum, i) => sum + i.bytes, 0);
  const deviceBytes = given.deviceMiB * 2 ** 20;
  const notes: string[] = [];
  if (open !== null)
    notes.push(
      `an open loop of ${w.arrival.process === "poisson" ? w.arrival.ratePerS : 0} req/s has ${open} requests in flight at ${1000 * OPEN_LOOP_TOKEN_S} ms a token`,
    );
  if (prefix + prompt + out > s.context)
    notes.push(`a request of ${prefix + prompt + out} tokens is longer than the model's context of ${s.context}`);
  const apart = kv * (c - 1) * prefix;
  if (prefix > 0 && bytes + apart > deviceBytes)
    notes.push(`a stack that keeps the prefix once a request needs ${(apart / 2 ** 30).toFixed(1)} GiB more, which does not fit`);
  return { items, bytes, deviceBytes, ok: bytes <= deviceBytes && prefix + prompt + out <= s.context, notes };
}
