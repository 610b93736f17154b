import { greedyJudge, MIN_PROMPT_TOKENS, promptDrawer, type Reference } from "../accuracy/index.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import type { ModelTools } from "./bench-job.ts";
import { shortChats } from "./short-chat.ts";
import type { DrawPrompt } from "./workload.ts";

/**
 * Lead in nat of the reference's first choice beyond which a served token is no longer the model's: the wider margin of the two accuracy classes. A
 * check job has already held the candidate to its own class; a probe is there for what is served only while the clock runs, and canned, skipped or
 * guessed tokens are behind by several nat.
 */
const PROBE_MARGIN_NAT = 0.5;

/** The evaluator's own tokenizer, prompts and reference, as the benchmark uses them. */
export function modelTools(tokenizer: Tokenizer, reference: Reference): ModelTools {
  const natural = promptDrawer(tokenizer);
  let short: DrawPrompt | null = null;
  const text = (id: number): string => (id < tokenizer.vocabSize ? tokenizer.decode([id]) : "?");
  return {
    drawPrompt: (rng, tokens) => (tokens < MIN_PROMPT_TOKENS ? (short ??= shortChats(tokenizer)) : natural)(rng, tokens),
    decode: (ids) => tokenizer.decode(ids),
    judge: greedyJudge(reference, PROBE_MARGIN_NAT, text),
  };
}
