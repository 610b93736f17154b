import type { TinyShape, TinyTensor } from "./tiny-gguf.ts";

/** The Llama architecture as plainly as it can be written, all in double: what the C++ reference must agree with. Returns log-probabilities per position. */
export function tinyLlama(shape: TinyShape, tensors: ReadonlyMap<string, TinyTensor>, tokens: readonly number[]): Float64Array[] {
  const { dim, heads, kvHeads } = shape;
  const headDim = dim / heads;
  const weights = (name: string): TinyTensor => tensors.get(name)!;
  const apply = (name: string, x: ArrayLike<number>): Float64Array => {
    const { cols, rows, values } = weights(name);
    return Float64Array.from({ length: rows }, (_, r) => {
      let sum = 0;
      for (let c = 0; c < cols; c++) sum += values[r * cols + c]! * x[c]!;
      return sum;
    });
  };
  const norm = (name: string, x: Float64Array): Float64Array => {
    const scale = 1 / Math.sqrt(x.reduce((n, v) => n + v * v, 0) / dim + Math.fround(1e-5));
    return x.map((v, i) => v * scale * weights(name).values[i]!);
  };
  const rotate = (x: Float64Array, position: number): Float64Array => {
    const out = x.slice();
    for (let i = 0; i < x.length; i += 2) {
      const angle = position * 10_000 ** (-(i % headDim) / headDim);
      out[i] = x[i]! * Math.cos(angle) - x[i + 1]! * Math.sin(angle);
      out[i + 1] = x[i]! * Math.sin(angle) + x[i + 1]! * Math.cos(angle);
    }
    return out;
  };
  const plus = (a: Float64Array, b: Float64Array): Float64Array => a.map((v, i) => v + b[i]!);

  let x: Float64Array[] = tokens.map((t) => Float64Array.from(weights("token_embd.weight").values.subarray(t * dim, (t + 1) * dim)));
  for (let l = 0; l < shape.layers; l++) {
    const at = `blk.${l}.`;
    const h = x.map((row) => norm(`${at}attn_norm.weight`, row));
    const q = h.map((row, p) => rotate(apply(`${at}attn_q.weight`, row), p));
    const k = h.map((row, p) => rotate(apply(`${at}attn_k.weight`, row), p));
    const v = h.map((row) => apply(`${at}attn_v.weight`, row));
    x = x.map((row, p) => {
      const mixed = new Float64Array(dim);
      for (let head = 0; head < heads; head++) {
        const own = head * headDim;
        const shared = Math.floor(head / (heads / kvHeads)) * headDim;
        const scores = Array.from({ length: p + 1 }, (_, t) => {
          let dot = 0;
          for (let d = 0; d < headDim; d++) dot += q[p]![own + d]! * k[t]![shared + d]!;
          return Math.exp(dot / Math.sqrt(headDim));
        });
        const total = scores.reduce((a, b) => a + b, 0);
        scores.forEach((s, t) => {
          for (let d = 0; d < headDim; d++) mixed[own + d]! += (s / total) * v[t]![shared + d]!;
        });
      }
      return plus(row, apply(`${at}attn_output.weight`, mixed));
    });
    x = x.map((row) => {
      const n = norm(`${at}ffn_norm.weight`, row);
      const up = apply(`${at}ffn_up.weight`, n);
      const gate = apply(`${at}ffn_gate.weight`, n).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!);
      return plus(row, apply(`${at}ffn_down.weight`, gate));
    });
  }
  return x.map((row) => {
    const logits = apply("output.weight", norm("output_norm.weight", row));
    const total = Math.log(logits.reduce((n, v) => n + Math.exp(v), 0));
    return logits.map((v) => v - total);
  });
}
