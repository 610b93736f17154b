import { createRng, type Rng } from "@vibeserve/shared";
import type { Tokenizer } from "../../tokenizer/index.ts";
import { generatePrompt, type GeneratedPrompt } from "../prompts/index.ts";

/** Sequences by length. Of a long one only the last positions are scored: they are what a short one can't show. */
export const DEPTHS = ["short", "mid", "deep", "long"] as const;
export type Depth = (typeof DEPTHS)[number];

/** Tokens of a sequence: log-normal for short ones, as chat prompts are, fixed for the others. */
const LENGTH: Readonly<Record<Exclude<Depth, "short">, number>> = { mid: 448, deep: 1000, long: 1900 };
const SHORT = { median: 128, sigma: 0.5, min: 56, max: 320 };
/** Scored positions of a sequence that is not short. */
const TAIL_POSITIONS = 256;

export interface PlannedSequence {
  readonly name: string;
  readonly depth: Depth;
  readonly kind: string;
  readonly tokens: readonly number[];
  /** First scored position: behind the system prompt, which is the same in many sequences and would count the same thing again. */
  readonly from: number;
}

/** Sequence `index` of a depth: the same for the same seed, whenever it is asked for. */
export function planSequence(seed: string, depth: Depth, index: number, tokenizer: Tokenizer): PlannedSequence {
  const name = `${depth}-${index}`;
  const rng = createRng(`${seed} ${name}`);
  if (depth === "short") {
    const drawn = Math.round(SHORT.median * Math.exp(SHORT.sigma * rng.normal()));
    const { kind, ids, messages } = generatePrompt(rng, { tokenizer, targetTokens: Math.min(SHORT.max, Math.max(SHORT.min, drawn)) });
    const system = messages[0]?.role === "system" || tokenizer.chat.defaultSystem;
    return { name, depth, kind, tokens: ids, from: system ? ids.indexOf(tokenizer.controlId(tokenizer.chat.turnEnd)) + 1 : 0 };
  }
  const target = LENGTH[depth];
  const { kind, tokens } =
    index % 2 === 0 ? copied(rng, tokenizer, target) : flat(generatePrompt(rng, { tokenizer, targetTokens: target }));
  return { name, depth, kind, tokens, from: tokens.length - TAIL_POSITIONS };
}

const flat = ({ kind, ids }: GeneratedPrompt): { kind: string; tokens: readonly number[] } => ({ kind, tokens: ids });

/** A copy task with its answer: the copy can only be predicted by reading as far back as half the sequence. */
function copied(rng: Rng, tokenizer: Tokenizer, target: number): { kind: string; tokens: readonly number[] } {
  const { ids, messages } = generatePrompt(rng, { tokenizer, targetTokens: Math.ceil(target / 2) + COPY_TASK_TOKENS, kind: "copy" });
  const content = messages.at(-1)?.content ?? "";
  const text = content.slice(content.indexOf("\n\n") + 2);
  return { kind: "copied", tokens: [...ids, ...tokenizer.encode(text)].slice(0, target) };
}
/** System prompt, task and template that a copy does not repeat: about half of it, so that the copy fills the second half. */
const COPY_TASK_TOKENS = 24;
