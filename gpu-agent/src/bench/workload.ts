import { clientsOf, createRng, type Length, type Rng, type Workload } from "@vibeserve/shared";
import type { ExpectedAnswer } from "./verify.ts";

/** A chat of an exact length, as the model's own template makes it. */
export interface ChatPrompt {
  readonly messages: readonly { readonly role: "system" | "user" | "assistant"; readonly content: string }[];
  /** All token ids that the model reads, template included. */
  readonly ids: readonly number[];
}

/** Draws a prompt of exactly `tokens` ids; throws RangeError where the template alone is longer. */
export type DrawPrompt = (rng: Rng, tokens: number) => ChatPrompt;

export interface BenchRequest extends ExpectedAnswer {
  readonly prompt: ChatPrompt;
  /** Open loop: ms after "go". Closed loop: 0. */
  readonly atMs: number;
}

/** One length in tokens. A log-normal draw is clipped to [min, max], as the schema says, not redrawn. */
export function drawLength(length: Length, rng: Rng): number {
  switch (length.distribution) {
    case "fixed":
      return length.tokens;
    case "uniform":
      return length.min + rng.int(length.max - length.min + 1);
    case "lognormal":
      return Math.min(length.max, Math.max(length.min, Math.round(length.median * Math.exp(length.sigma * rng.normal()))));
  }
}

/**
 * The requests of one run from one private seed: fresh prompts of exact length, an exact number of output tokens (ignore_eos), greedy, streamed.
 * Both arms of a pair are given the same seed, so that lengths and texts cancel in the ratio; no seed is used for a second pair, and the arms
 * share no memory, so nothing but the chat template's own beginning can be known from an earlier run. Deterministic in (workload, seed).
 */
export function expandWorkload(w: Workload, seed: string, draw: DrawPrompt): BenchRequest[] {
  const rng = createRng(`bench ${seed}`);
  let atMs = 0;
  return Array.from({ length: w.requests }, () => {
    const prompt = draw(rng, drawLength(w.prompt, rng));
    const outputTokens = drawLength(w.output, rng);
    const due = atMs;
    // Gaps of a Poisson process are exponential; the first request is due at once.
    if (w.arrival.process === "poisson") atMs += (1000 / w.arrival.ratePerS) * rng.exponential();
    return { prompt, atMs: due, promptIds: prompt.ids, outputTokens };
  });
}

/** Unscored requests that make an arm page in its weights, start its threads and grow its buffers: one a client, whole prompts, few tokens out. */
export function warmUpWorkload(w: Workload): Workload {
  const concurrency = clientsOf(w);
  return {
    arrival: { process: "closed", concurrency },
    prompt: w.prompt,
    output: { distribution: "fixed", tokens: WARM_UP_TOKENS },
    requests: Math.min(w.requests, concurrency),
  };
}
const WARM_UP_TOKENS = 8;
