import { tiny, tinyWeights, type Matrix } from "./tiny-model.ts";

/**
 * Log-probabilities of the tiny model after each token of `ids`, in float64 and as directly as the architecture can be written down:
 * the twin that the stack's answers are compared with.
 */
export function tinyLogprobs(ids: readonly number[], seed?: number): Float64Array[] {
  const { matrices } = tinyWeights(seed);
  const matrix = (name: string): Matrix => matrices.get(`${name}.weight`)!;
  const times = (m: Matrix, x: Float64Array) =>
    Float64Array.from({ length: m.rows }, (_, r) => x.reduce((sum, value, i) => sum + value * m.values[r * m.cols + i]!, 0));
  const add = (a: Float64Array, b: Float64Array) => a.map((value, i) => value + b[i]!);
  const norm = (x: Float64Array, name: string) => {
    const scale = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + tiny.eps);
    return x.map((value, i) => value * scale * matrix(name).values[i]!);
  };
  const rotate = (x: Float64Array, pos: number) =>
    x.map((value, i) => {
      const angle = pos * tiny.ropeBase ** (-((i % tiny.headDim) & ~1) / tiny.headDim);
      return i % 2 === 0 ? value * Math.cos(angle) - x[i + 1]! * Math.sin(angle) : x[i - 1]! * Math.sin(angle) + value * Math.cos(angle);
    });
  const head = (x: Float64Array, h: number) => x.subarray(h * tiny.headDim, (h + 1) * tiny.headDim);

  let rows = ids.map((id) => matrix("token_embd").values.slice(id * tiny.dim, (id + 1) * tiny.dim));
  for (let layer = 0; layer < tiny.layers; ++layer) {
    const blk = `blk.${layer}`;
    const normed = rows.map((x) => norm(x, `${blk}.attn_norm`));
    const queries = normed.map((x, pos) => rotate(times(matrix(`${blk}.attn_q`), x), pos));
    const keys = normed.map((x, pos) => rotate(times(matrix(`${blk}.attn_k`), x), pos));
    const values = normed.map((x) => times(matrix(`${blk}.attn_v`), x));
    const attended = queries.map((query, pos) => {
      const out = new Float64Array(tiny.dim);
      for (let h = 0; h < tiny.heads; ++h) {
        const shared = Math.floor(h / (tiny.heads / tiny.kvHeads));
        const dots = keys.slice(0, pos + 1).map((key) => head(key, shared).reduce((sum, k, i) => sum + k * head(query, h)[i]!, 0));
        const weights = dots.map((dot) => Math.exp(dot / Math.sqrt(tiny.headDim)));
        const total = weights.reduce((sum, w) => sum + w, 0);
        for (let i = 0; i < tiny.headDim; ++i) {
          out[h * tiny.headDim + i] = weights.reduce((sum, w, p) => sum + (w / total) * head(values[p]!, shared)[i]!, 0);
        }
      }
      return out;
    });
    rows = rows.map((x, pos) => add(x, times(matrix(`${blk}.attn_output`), attended[pos]!)));
    rows = rows.map((x) => {
      const y = norm(x, `${blk}.ffn_norm`);
      const up = times(matrix(`${blk}.ffn_up`), y);
      const active = times(matrix(`${blk}.ffn_gate`), y).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!);
      return add(x, times(matrix(`${blk}.ffn_down`), active));
    });
  }
  return rows.map((x) => {
    const logits = times(matrix("token_embd"), norm(x, "output_norm"));
    const most = Math.max(...logits);
    const all = most + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - most), 0));
    return logits.map((value) => value - all);
  });
}
