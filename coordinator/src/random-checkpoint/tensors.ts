import type { ModelShape } from "@vibeserve/shared";
import { bfloat16, type Draws } from "./draws.ts";
import { embeddingRows } from "./embedding-rows.ts";

/** One tensor, written row by row; a vector is one row. */
export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly fill: (row: Uint16Array, index: number) => void;
}

/**
 * Random logits over a whole vocabulary lie too close at their top: bfloat16 would take another first choice at two positions of a hundred, at any scale. So each
 * token has three successors that are planted far above all others, and what the layers make of the context chooses among these. How that goes: docs/accelerators.md.
 */
/** Standard deviation of a logit over the vocabulary, in nat: how much context says. */
const LOGIT = 2.3;
/** Mean logits of the planted successors, in such deviations; the largest of 150,000 others has 4.4. */
const LEADS = [8.5, 7.1, 6.7];
/** What is left of them behind the first layer's attention and the norms, about. */
const KEPT = 6 / 7;
/** How many slots ahead of a token each of them is (embedding-rows.ts). */
const AHEAD = [1, 29, 173];
/** Energy of the last hidden state in that of the embedding: the rest is what the layers add, a fifth of it by attention. */
const GROWTH = 8;
const ATTENTION = 0.2;
/** Variance of queries and keys, so the standard deviation of a score: a few positions count, not all alike. */
const SCORE = 1.5;
/** Positions that count, about; the variance of their mean is smaller by so much. */
const ATTENDED = 4;
/** Energy of the constants, the first eighth of every embedding's channels, in that of another channel. They are many and unlike one another, so that their rounding evens out. */
const CONSTANT_ENERGY = 64;
const CONSTANT_PART = 8;
/** What opens a gate, and its silu. */
const [OPEN, SILU_OPEN] = [4, 3.928];
/** The root of the mean of silu(z)² over standard normal z. */
const SILU_RMS = 0.596;

const LEADS_ENERGY = LEADS.reduce((sum, lead) => sum + lead * lead, 0);

/** Tensors of a Llama, Qwen2 or Qwen3 checkpoint, in the order in which they are written. Throws RangeError where the shape is too narrow. */
export function tensors(s: ModelShape, draws: Draws): Tensor[] {
  const { hidden: d, inner } = s;
  const count = Math.floor(d / CONSTANT_PART);
  if (inner < d || d - count < 2 * LEADS_ENERGY)
    throw new RangeError(`width ${d} with ${inner} inner units is too narrow to plant successors in`);
  const out: Tensor[] = [];
  const matrix = (name: string, rows: number, cols: number, deviation: number, alter?: (row: Uint16Array, index: number) => void): void => {
    const next = draws.stream(out.length);
    const fill = (row: Uint16Array, index: number): void => {
      draws.fill(row, deviation, next());
      alter?.(row, index);
    };
    out.push({ name: `${name}.weight`, shape: [rows, cols], fill });
  };
  const vector = (name: string, size: number, value: (draw: number, i: number) => number, kind = "weight"): void => {
    const next = draws.stream(out.length);
    out.push({ name: `${name}.${kind}`, shape: [size], fill: (row) => row.forEach((_, i) => (row[i] = bfloat16(value(next(), i)))) });
  };
  const sigma = LOGIT / Math.sqrt(d);
  const unit = 1 / Math.sqrt(d);
  const qk = Math.sqrt(SCORE);
  const [attended, fed] = [ATTENTION, 1 - ATTENTION].map((part) => sigma * Math.sqrt(((GROWTH - 1) * part) / s.layers.full)) as [
    number,
    number,
  ];
  // A successor's embedding, in the hidden state so often, has its lead as mean logit.
  const often = LEADS.map((lead) => lead * Math.sqrt(GROWTH / (d - count - LEADS_ENERGY)));
  const energy = GROWTH + often.reduce((sum, x) => sum + x * x, 0);
  const signs = draws.stream(-3);
  const sign = Array.from({ length: d }, () => (signs() % 2 === 0 ? 1 : -1));

  /** Sixteen values, all near their mean. */
  const near = (mean: number, draw: number): number => mean * (1 + ((draw % 16) - 7.5) / 64);
  const constants = Array.from({ length: count }, (_, i) => near(Math.sqrt(CONSTANT_ENERGY / count), i));
  /** Nothing is added to them. */
  const constant = (row: Uint16Array, channel: number): void => {
    if (channel < count) row.fill(0);
  };
  const norm = (draw: number): number => near(1, draw);
  const embed = embeddingRows(s, draws, sigma, constants);
  matrix("model.embed_tokens", s.vocab, d, sigma, embed);
  for (let layer = 0; layer < s.layers.full; ++layer) {
    const name = `model.layers.${layer}.`;
    const [q, kv] = [s.heads * s.headDim, s.kvHeads * s.headDim];
    vector(`${name}input_layernorm`, d, norm);
    matrix(`${name}self_attn.q_proj`, q, d, qk * unit);
    matrix(`${name}self_attn.k_proj`, kv, d, qk * unit);
    matrix(`${name}self_attn.v_proj`, kv, d, unit);
    matrix(`${name}self_attn.o_proj`, d, q, attended * Math.sqrt(ATTENDED / q), constant);
    if (s.type === "qwen2")
      for (const [part, size] of [
        ["q", q],
        ["k", kv],
        ["v", kv],
      ] as const)
        vector(`${name}self_attn.${part}_proj`, size, (draw) => near(1, draw) - 1, "bias");
    if (s.type === "qwen3") for (const part of ["q", "k"]) vector(`${name}self_attn.${part}_norm`, s.headDim, (draw) => near(qk, draw));
    vector(`${name}post_attention_layernorm`, d, layer === 0 ? (draw, i) => (i < count ? 1 : near(1, draw)) : norm);
    // The first layer's first units each pass a channel on: the gate sees a constant alone, `down` adds the channel where the successors have it.
    const planted = layer === 0 ? d - count : 0;
    const oneHot = (channel: (unit: number) => number, value: (unit: number) => number) => (row: Uint16Array, unit: number) => {
      if (unit < planted) row.fill(0)[channel(unit)] = bfloat16(value(unit));
    };
    const open = oneHot(
      (u) => u % count,
      (u) => near(OPEN / constants[u % count]!, Math.floor(u / count)),
    );
    const pass = oneHot(
      (u) => count + u,
      () => 1,
    );
    matrix(`${name}mlp.gate_proj`, inner, d, unit, open);
    matrix(`${name}mlp.up_proj`, inner, d, unit, pass);
    matrix(`${name}mlp.down_proj`, d, inner, fed / (SILU_RMS * Math.sqrt(inner - planted)), (row, channel) => {
      constant(row, channel);
      row.fill(0, 0, planted);
      if (planted > 0 && channel >= count)
        AHEAD.forEach((ahead, i) => {
          const from = (channel - count - ahead + planted) % planted;
          row[from] = bfloat16((sign[channel]! * often[i]! * sigma) / SILU_OPEN);
        });
    });
  }
  // Signs keep a token from being its own likeliest successor. The constants lower all logits alike, so that the likeliest are near zero, where bfloat16 is fine.
  const lower = (KEPT * LEADS[0]! * LOGIT * Math.sqrt(energy)) / (sigma * CONSTANT_ENERGY);
  vector("model.norm", d, (_, i) => (i < count ? -lower : sign[i]!));
  if (!s.tied) matrix("lm_head", s.vocab, d, sigma, embed);
  return out;
}
