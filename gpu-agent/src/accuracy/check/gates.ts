/** What a stack must reach. Defaults from the project's accuracy policy; calibrated on SmolLM2-135M (docs of the check say how). */
export interface AccuracyLimits {
  /** Mean KL in nat, teacher-forced, over all positions. */
  readonly meanKl: number;
  /** The same in each range of depths: a shortened attention window shows at depth alone, where few positions lie. */
  readonly depthMeanKl: number;
  /** 99.9th percentile of KL (the largest, where there are fewer than 1,000 positions), in nat. */
  readonly tailKl: number;
  /** Fraction of positions with the reference's first choice. */
  readonly top1: number;
  /** Nat by which the reference must prefer its first choice for the candidate to have to share it; null: not asked. */
  readonly confidentMargin: number | null;
  /** Largest |perplexity ratio − 1| on the actual next tokens. */
  readonly perplexity: number;
  /** Margin rule: a served greedy id is the reference's first choice or at most so many nat less likely. */
  readonly greedyMargin: number;
  /** Mean KL in nat between what completions report and what /v1/score says of the same position. */
  readonly servedVsScored: number;
}

/**
 * `exact`: the format of the weights is kept, arithmetic may round. `lossy`: declared so (int8 activations, weights or KV cache).
 *
 * Calibrated on SmolLM2-135M Q4_1, 1,907 positions (448 to 1,000 tokens deep among them), by the reference with its operands rounded:
 *
 * | rounding of every product's operands | mean KL | 99.9th percentile | top-1 | largest margin flipped | perplexity |
 * |---|---|---|---|---|---|
 * | none (the scalar float32 seed, 695 positions) | 2e-11 | 3e-10 | 100 % | – | 1.000 |
 * | bf16 weights and activations | 1.1e-4 | 0.0035 | 99.3 % | 0.10 nat | 0.9996 |
 * | int8 activations per 32 (the scheme of llama.cpp's 4-bit kernels) | 2.0e-3 | 0.046 | 97.9 % | 0.49 nat | 1.004 |
 *
 * So int8 activations at one scale per 32 values are lossy by these limits, and a stack that is `exact` needs about 10 bits.
 */
export const ACCURACY_LIMITS: Readonly<Record<"exact" | "lossy", AccuracyLimits>> = {
  exact: {
    meanKl: 1e-3,
    depthMeanKl: 2e-3,
    tailKl: 0.05,
    top1: 0.99,
    confidentMargin: 0.3,
    perplexity: 0.003,
    greedyMargin: 0.15,
    servedVsScored: 2e-3,
  },
  lossy: {
    meanKl: 5e-3,
    depthMeanKl: 1e-2,
    tailKl: 0.2,
    top1: 0.975,
    confidentMargin: null,
    perplexity: 0.01,
    greedyMargin: 0.5,
    servedVsScored: 1e-2,
  },
};

/** Ranges of positions whose mean KL is judged by itself: [from, to). */
export const DEPTH_BUCKETS = [
  { name: "under 128", from: 0, to: 128 },
  { name: "128 to 511", from: 128, to: 512 },
  { name: "512 to 1023", from: 512, to: 1024 },
  { name: "from 1024", from: 1024, to: Infinity },
] as const;
/** Fewer positions than this say nothing about a range of depths. */
export const BUCKET_MIN_POSITIONS = 50;
