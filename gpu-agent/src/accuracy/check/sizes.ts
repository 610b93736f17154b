import type { SliceSpec } from "../pool/pool.ts";

export type CheckLevel = "screen" | "crown" | "public";

/** How much a check asks. Token counts are of served tokens; prompts come on top. */
export interface CheckSizes {
  /** Hidden positions for the teacher-forced comparison. */
  readonly slice: SliceSpec;
  /** Chats one at a time. */
  readonly soloChats: number;
  readonly soloTokens: number;
  /** Chats at once, mixed with scoring and completions. */
  readonly concurrency: number;
  readonly chats: number;
  readonly chatTokens: number;
  /** Further chats at a higher concurrency: each of `prompts` prompts is asked twice, for half and for all of `tokens`. 0: none. */
  readonly burst: { readonly concurrency: number; readonly prompts: number; readonly tokens: number };
  /** Completions with log-probabilities. */
  readonly completions: number;
  readonly completionTokens: number;
  /** Prompt tokens of the chats above, drawn uniformly. */
  readonly prompt: { readonly min: number; readonly max: number };
  /** The whole check, and the longest silence of a candidate that owes an answer. A scalar stack scores 448 tokens in 20 to 60 s. */
  readonly totalMs: number;
  readonly stallMs: number;
}

/** A stack under so many tokens per second (prompt and output, one chat) gets the small screen: the float32 scalar seed makes 10 to 40, the
 * first rungs of the ladder, still one thread and one request at a time, 100 to 200. The full screen would take them a minute. */
const SLOW_TOKENS_PER_S = 250;

const PROMPT = { min: 44, max: 72 };
const FAST_SCREEN: CheckSizes = {
  slice: { positions: 500, deep: 1 },
  soloChats: 2,
  soloTokens: 40,
  concurrency: 8,
  chats: 8,
  chatTokens: 40,
  burst: { concurrency: 24, prompts: 0, tokens: 0 },
  completions: 3,
  completionTokens: 10,
  prompt: PROMPT,
  totalMs: 180_000,
  stallMs: 60_000,
};
const SLOW_SCREEN: CheckSizes = {
  ...FAST_SCREEN,
  slice: { positions: 500, mid: 1 },
  soloChats: 1,
  soloTokens: 12,
  chats: 3,
  chatTokens: 12,
  completions: 1,
  completionTokens: 6,
  totalMs: 420_000,
  stallMs: 180_000,
};
const CROWN: CheckSizes = {
  ...FAST_SCREEN,
  slice: { positions: 2000, mid: 2, deep: 1, long: 1 },
  soloTokens: 96,
  chatTokens: 64,
  burst: { concurrency: 24, prompts: 12, tokens: 48 },
  completions: 8,
  completionTokens: 16,
  // 4,000 tokens to score on scalar attention, before the first chat gets its turn.
  totalMs: 900_000,
  stallMs: 300_000,
};

/** Sizes for a level and a stack of that speed. A slow stack is screened with less; crowning never shrinks. */
export function defaultSizes(level: CheckLevel, tokensPerS: number): CheckSizes {
  if (level === "crown") return CROWN;
  return tokensPerS < SLOW_TOKENS_PER_S ? SLOW_SCREEN : FAST_SCREEN;
}
