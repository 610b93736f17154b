import { comparable } from "../../tokenizer/index.ts";
import type { GeneratedPrompt } from "../prompts/index.ts";
import type { LogprobAnswer } from "./candidate.ts";
import { attempt, textOf, type CheckContext } from "./context.ts";
import { divergence, topFive } from "./divergence.ts";

export const REPORTED_TOP = 20;
const SELF_RULE = "completions: a greedy id is the likeliest that is reported, and ids, counts and text agree";
/** Printing and parsing a float32. */
const PRINT_TOLERANCE = 1e-3;

interface Compared {
  readonly where: string;
  readonly kl: number;
  readonly candidate: string;
  readonly reference: string;
}

/** Completions with log-probabilities: what is served must be what is reported, what /v1/score says, and what the reference says. */
export class LogprobRun {
  readonly #ctx: CheckContext;
  readonly #answers: { prompt: readonly number[]; answer: LogprobAnswer }[] = [];
  readonly #againstScore: Compared[] = [];

  constructor(ctx: CheckContext) {
    this.#ctx = ctx;
  }

  task(prompt: GeneratedPrompt, tokens: number): () => Promise<void> {
    const { candidate, findings, tokenizer } = this.#ctx;
    return () =>
      attempt(this.#ctx, "completion with logprobs", async () => {
        const answer = await candidate.complete(prompt.ids, tokens, REPORTED_TOP);
        const problems = selfProblems(answer, tokens, prompt.ids.length, (ids) => tokenizer.decode(ids), tokenizer.vocabSize);
        findings.rule(SELF_RULE, problems, "completion with logprobs");
        if (problems.length > 0) return;
        this.#answers.push({ prompt: prompt.ids, answer });
        await this.#score(prompt.ids, answer);
      });
  }

  /** Gates; the reference scores what was served. */
  async judge(): Promise<void> {
    const { reference, findings, limits, tokenizer, signal } = this.#ctx;
    const sequences = this.#answers.map(({ prompt, answer }) => ({
      tokens: [...prompt, ...answer.ids],
      from: prompt.length - 1,
      extras: answer.top.flatMap((top, i) => [...top.keys()].map((id) => ({ position: prompt.length - 1 + i, id }))),
    }));
    const scores = await reference.score(sequences, signal);
    const againstReference = this.#answers.flatMap(({ answer }, a) => {
      let at = 0;
      return answer.top.map((top, i) => {
        const own = scores[a]!.extras.subarray(at, (at += top.size));
        return compare(`completion ${a}, token ${i}`, [...top.keys()], own, [...top.values()], textOf(tokenizer));
      });
    });
    findings.servedTokens += againstReference.length;
    const gate = (name: string, compared: readonly Compared[], limit: number): void => {
      const mean = compared.reduce((n, c) => n + c.kl, 0) / Math.max(1, compared.length);
      const [worst] = compared.toSorted((x, y) => y.kl - x.kl);
      const ok = compared.length > 0 && mean <= limit;
      findings.gate({ name, value: compared.length > 0 ? mean : Infinity, unit: "nat", limit: `≤ ${limit}`, ok }, worst);
    };
    gate("mean KL of reported log-probabilities", againstReference, limits.depthMeanKl);
    gate("mean KL between reported log-probabilities and /v1/score", this.#againstScore, limits.servedVsScored);
  }

  async #score(prompt: readonly number[], answer: LogprobAnswer): Promise<void> {
    const query = [...prompt, ...answer.ids].map((_, j) => {
      const top = answer.top[j - prompt.length + 1];
      return top ? [...top.keys()].sort((a, b) => a - b) : [];
    });
    const rows = await this.#ctx.candidate.score([...prompt, ...answer.ids], query);
    answer.top.forEach((top, i) => {
      const j = prompt.length - 1 + i;
      const ids = query[j]!;
      const reported = ids.map((id) => top.get(id)!);
      this.#againstScore.push(
        compare(`completion, token ${i} (reference: /v1/score)`, ids, rows[j]!, reported, textOf(this.#ctx.tokenizer)),
      );
    });
  }
}

function compare(
  where: string,
  ids: readonly number[],
  reference: ArrayLike<number>,
  candidate: readonly number[],
  text: (id: number) => string,
): Compared {
  return {
    where,
    kl: divergence({ ids, reference, candidate }),
    candidate: topFive(ids, candidate, text),
    reference: topFive(ids, reference, text),
  };
}

function selfProblems(
  a: LogprobAnswer,
  tokens: number,
  promptTokens: number,
  decode: (ids: readonly number[]) => string,
  vocab: number,
): string[] {
  const stray = [...a.ids, ...a.top.flatMap((top) => [...top.keys()])].find((id) => id >= vocab);
  if (stray !== undefined) return [`token id ${stray} is outside the vocabulary`];
  const problems: string[] = [];
  if (a.ids.length !== tokens) problems.push(`${a.ids.length} ids were served, ignore_eos and max_tokens ask for ${tokens}`);
  if (a.usage.completion_tokens !== a.ids.length || a.usage.prompt_tokens !== promptTokens)
    problems.push(`usage says ${a.usage.prompt_tokens} + ${a.usage.completion_tokens} tokens, there are ${promptTokens} + ${a.ids.length}`);
  if (a.finish !== "length") problems.push(`finish_reason is "${a.finish}" in spite of ignore_eos`);
  if (comparable(a.text) !== comparable(decode(a.ids))) problems.push("text is not what the ids decode to");
  a.ids.forEach((id, i) => {
    const top = a.top[i]!;
    const own = a.tokenLogprobs[i]!;
    const best = Math.max(...top.values());
    if (top.size !== REPORTED_TOP) problems.push(`top_logprobs has ${top.size} entries at token ${i}, ${REPORTED_TOP} were asked for`);
    else if (!top.has(id)) problems.push(`the served id ${id} is not among the likeliest ${REPORTED_TOP} at token ${i}`);
    else if (Math.abs(top.get(id)! - own) > PRINT_TOLERANCE)
      problems.push(`token_logprobs and top_logprobs disagree at token ${i}: ${own} and ${top.get(id)!}`);
    else if (best - own > PRINT_TOLERANCE)
      problems.push(`the served id ${id} is ${best - own} nat behind the likeliest reported at token ${i}`);
  });
  return problems;
}
