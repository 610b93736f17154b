import type { Rng } from "@vibeserve/shared";
import type { ChatMessage, Tokenizer } from "../../tokenizer/index.ts";
import { planPrompt, PROMPT_KINDS, type PromptKind, type PromptPlan } from "./kinds.ts";
import { pick } from "./words.ts";

export interface GeneratedPrompt {
  readonly kind: PromptKind;
  readonly messages: readonly ChatMessage[];
  /** All ids that the model reads, the chat template included; their number is the exact prompt token count. */
  readonly ids: readonly number[];
}
export interface PromptOptions {
  readonly tokenizer: Tokenizer;
  /** Exact number of prompt tokens, template included. */
  readonly targetTokens: number;
  /** Drawn if absent. */
  readonly kind?: PromptKind;
}

/** The template with a two-word system prompt and a question cut to a few words takes this much. */
export const MIN_PROMPT_TOKENS = 24;
/** Each try fails only where no ending hits the count exactly: rarer than 1 in 1,000. */
const TRIES = 50;

/**
 * A fresh, natural prompt of exactly `targetTokens` tokens, determined by the generator alone. A kind that can't be so short falls back to a plain
 * question. Throws RangeError under MIN_PROMPT_TOKENS.
 */
export function generatePrompt(rng: Rng, { tokenizer, targetTokens, kind = pick(rng, PROMPT_KINDS) }: PromptOptions): GeneratedPrompt {
  if (targetTokens < MIN_PROMPT_TOKENS)
    throw new RangeError(`a prompt of ${targetTokens} tokens is shorter than the least, ${MIN_PROMPT_TOKENS}`);
  for (let i = 0; i < TRIES; i++) {
    const prompt = fit(tokenizer, rng, planPrompt(rng, kind), targetTokens);
    if (prompt) return { kind, ...prompt };
    const shorter = fit(tokenizer, rng, { ...planPrompt(rng, "chat"), system: "Be brief." }, targetTokens);
    if (shorter) return { kind: "chat", ...shorter };
  }
  throw new Error(`no prompt of exactly ${targetTokens} tokens was found in ${TRIES} tries`);
}

type Fitted = Pick<GeneratedPrompt, "messages" | "ids">;

function fit(tokenizer: Tokenizer, rng: Rng, plan: PromptPlan, target: number): Fitted | null {
  const chat = (content: string): Fitted => {
    const messages: ChatMessage[] = [
      ...(plan.system === null ? [] : [{ role: "system" as const, content: plan.system }]),
      ...plan.history,
      { role: "user", content },
    ];
    return { messages, ids: tokenizer.encodeChat(messages) };
  };
  // Units begin or end with white space, so their token counts add up but for a few; the endings correct the rest.
  let body = plan.lead;
  let count = chat(body).ids.length;
  while (count < target) {
    const unit = plan.unit();
    body += unit;
    count += tokenizer.encode(unit).length;
  }
  const words = body.match(/\s*\S+/g) ?? [];
  // The most words that fit: their count grows with them, so halving finds it.
  let [low, high] = [1, words.length];
  if (chat(words.slice(0, 1).join("")).ids.length > target) return null;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (chat(words.slice(0, middle).join("")).ids.length <= target) low = middle;
    else high = middle - 1;
  }
  for (let kept = low; kept >= Math.max(1, low - 4); kept--) {
    const text = words.slice(0, kept).join("");
    const missing = target - chat(text).ids.length;
    for (const end of endings(rng, missing)) {
      const done = chat(text + end);
      if (done.ids.length === target) return done;
    }
  }
  return null;
}

/** Texts that add about `missing` tokens: each digit is a token of its own. */
function endings(rng: Rng, missing: number): string[] {
  if (missing === 0) return [""];
  const digits = (n: number): string => Array.from({ length: Math.max(0, n) }, () => String(1 + rng.int(9))).join("");
  return [
    "?",
    ".",
    "!",
    " now",
    "...",
    digits(missing),
    ` ${digits(missing - 1)}`,
    ` #${digits(missing - 1)}`,
    ` (${digits(missing - 2)})`,
  ];
}

/** The generator as the benchmark's workload wants it: `(rng, tokens) → messages and ids`. */
export function promptDrawer(tokenizer: Tokenizer): (rng: Rng, tokens: number) => GeneratedPrompt {
  return (rng, targetTokens) => generatePrompt(rng, { tokenizer, targetTokens });
}
