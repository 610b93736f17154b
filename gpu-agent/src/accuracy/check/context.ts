import type { Rng } from "@vibeserve/shared";
import type { Tokenizer } from "../../tokenizer/index.ts";
import { generatePrompt, type GeneratedPrompt } from "../prompts/index.ts";
import type { Reference } from "../reference.ts";
import type { Candidate } from "./candidate.ts";
import { CandidateFault } from "./candidate-fault.ts";
import type { Findings } from "./findings.ts";
import type { AccuracyLimits } from "./gates.ts";
import type { CheckSizes } from "./sizes.ts";
import type { Watch } from "./watch.ts";

/** What every part of a check works with. */
export interface CheckContext {
  readonly candidate: Candidate;
  readonly findings: Findings;
  readonly limits: AccuracyLimits;
  readonly sizes: CheckSizes;
  readonly tokenizer: Tokenizer;
  readonly reference: Reference;
  /** Seeded afresh for each check; nobody outside knows it. */
  readonly rng: Rng;
  /** Bounds the candidate. */
  readonly watch: Watch;
  /** The caller's own; all that the reference listens to. */
  readonly signal: AbortSignal | undefined;
}

/** Rule under which broken answers are counted: wrong shapes, dropped connections, refusals. */
export const ANSWERS_RULE = "every request is answered in the contract's shape";

export function drawPrompt({ rng, tokenizer, sizes }: CheckContext): GeneratedPrompt {
  const { min, max } = sizes.prompt;
  return generatePrompt(rng, { tokenizer, targetTokens: min + rng.int(max - min + 1) });
}

/** Text of an id, whatever the candidate claims an id to be. */
export function textOf(tokenizer: Tokenizer): (id: number) => string {
  return (id) => (Number.isInteger(id) && id >= 0 && id < tokenizer.vocabSize ? tokenizer.decode([id]) : "?");
}

/** Runs one exchange; a fault of the candidate is noted and the check goes on, unless its time is over. */
export async function attempt(ctx: CheckContext, what: string, exchange: () => Promise<void>): Promise<void> {
  try {
    await exchange();
    ctx.findings.rule(ANSWERS_RULE, []);
  } catch (error) {
    if (!(error instanceof CandidateFault) || ctx.watch.signal.aborted) throw error;
    ctx.findings.rule(ANSWERS_RULE, [error.message], what);
  }
}
