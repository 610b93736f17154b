import { clientsOf, type Device, type Length, type Roofline, type Workload } from "@vibeserve/shared";
import type { ModelShape } from "./model-shape.ts";

/** A stack may keep its KV cache in another type; half precision is what they begin with. */
const KV_BYTES = 2;

/**
 * The most output tokens a second that this device can give for this model and workload. With prompts of P tokens, answers of O, and B sequences at once,
 * an output token needs
 *   bytes = weights / B  +  KV bytes a position · (P + O/2) · (O−1)/O
 *   operations = [ 2 · body · N  +  2 · head · O  +  4 · layers · heads · head width · N(N+1)/2 ] / O,   N = P + O − 1,
 * and the bound is min(memory / bytes, peak / operations). Each step reads all weights once for the whole batch; the first token comes out of the prompt's
 * pass, the O−1 others read the positions before them (P + O/2 on average); the prompt's operations are spread over the answer; the last token is not fed
 * back. Activations, writes and caches that hold weights are left out, and perfect overlap is assumed. Roofline: Williams, Waterman, Patterson,
 * CACM 52(4), 2009; costs of a transformer's token: Pope et al., arXiv 2211.05102, section 2. Lengths enter by their means.
 */
export function rooflineOf(shape: ModelShape, workload: Workload, peaks: NonNullable<Device["peaks"]>): Roofline {
  const [prompt, output] = [meanLength(workload.prompt), meanLength(workload.output)];
  const batch = Math.min(workload.requests, clientsOf(workload));
  const kvBytes = 2 * shape.layers * shape.kvHeads * shape.headDim * KV_BYTES;
  const bytesPerToken = shape.weightBytes / batch + kvBytes * (prompt + output / 2) * ((output - 1) / output);
  const fed = prompt + output - 1;
  const attention = 4 * shape.layers * shape.heads * shape.headDim * ((fed * (fed + 1)) / 2);
  const opsPerToken = (2 * shape.bodyWeights * fed + 2 * shape.headWeights * output + attention) / output;
  const { memoryGBs, gops } = peaks;
  const [byMemory, byCompute] = [(1e9 * memoryGBs) / bytesPerToken, (1e9 * gops) / opsPerToken];
  const limit = byMemory < byCompute ? "memory" : "compute";
  return { bytesPerToken, opsPerToken, memoryGBs, gops, tokPerS: Math.min(byMemory, byCompute), limit };
}

/** Mean tokens of a drawn length. A log-normal's is that of the clipped draw, by 1,000 steps over ±5 standard deviations. */
export function meanLength(length: Length): number {
  switch (length.distribution) {
    case "fixed":
      return length.tokens;
    case "uniform":
      return (length.min + length.max) / 2;
    case "lognormal": {
      const { median, sigma, min, max } = length;
      let [sum, weight] = [0, 0];
      for (let i = 0; i < 1000; i++) {
        const z = (i + 0.5) / 100 - 5;
        const density = Math.exp((-z * z) / 2);
        sum += density * Math.min(max, Math.max(min, Math.round(median * Math.exp(sigma * z))));
        weight += density;
      }
      return sum / weight;
    }
  }
}
