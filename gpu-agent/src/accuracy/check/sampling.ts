import type { CheckContext } from "./context.ts";
import { drawPrompt } from "./context.ts";
import { COUNTS_RULE } from "./greedy.ts";
import { problemsOf } from "./answer-rules.ts";

const SAMPLING_RULE = "sampled ids lie within top_p";
const SEED_RULE = "a seed gives the same sample again, another seed another";

/** Nucleus of the test, and by how much rounding may move its border. */
const TOP_P = 0.5;
const TOP_P_SLACK = 0.1;

/** Few, since each takes a scalar stack tens of ms. After two ids that nobody ever saw together a next one is hard to guess. */
const SEED_PROMPT = 2;
const SEED_TOKENS = 3;
/** Asked for after another prompt where all seeds agree: a model that is sure of what follows the first says the same three ids after any seed, but not so many more. */
const MORE_TOKENS = 24;
/** Other seeds that are tried before one says that the seed is ignored. */
const SEED_TRIES = 4;

export async function sampling(ctx: CheckContext): Promise<void> {
  const { candidate, findings, tokenizer, reference, rng, signal } = ctx;
  const { messages, ids } = drawPrompt(ctx);
  const request = { messages, maxTokens: 10, ignoreEos: true, sampling: { temperature: 0.8, topP: TOP_P, seed: 1 + rng.int(1000) } };
  const answer = await candidate.chat(request);
  const problems = problemsOf(answer, request, ids.length, tokenizer);
  findings.rule(COUNTS_RULE, problems, "sampled chat");
  if (problems.length > 0) return;
  const [scores] = await reference.score([{ tokens: [...ids, ...answer.ids], from: ids.length - 1 }], signal);
  const outside = answer.ids.flatMap((id, i) => {
    // At a temperature under 1 the nucleus is no larger than at 1, so the reference's own nucleus contains it.
    let before = 0;
    for (let k = 0; k < scores!.top && before < TOP_P + TOP_P_SLACK; k++) {
      if (scores!.ids[i * scores!.top + k] === id) return [];
      before += Math.exp(scores!.logprobs[i * scores!.top + k]!);
    }
    return [`sampled id ${id} at token ${i} lies behind ${before.toFixed(2)} of the probability`];
  });
  findings.rule(SAMPLING_RULE, outside, "sampled chat", `top_p ${TOP_P}`);
}

/** The same request with one seed twice, then with others until one samples something else. */
export async function seeds(ctx: CheckContext): Promise<void> {
  const { findings, tokenizer } = ctx;
  const plain = Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter((id) => !tokenizer.isControl(id));
  const first = await seedsAfter(ctx, plain, SEED_TOKENS);
  const { problems, where } = first.agreed ? await seedsAfter(ctx, plain, MORE_TOKENS) : first;
  findings.rule(SEED_RULE, problems, "sampled completion", `after the ids ${where}`);
}

/** The nucleus keeps the far tail out, where the last bit of a logit may decide between two ids. */
async function seedsAfter(
  { candidate, findings, tokenizer, rng }: CheckContext,
  plain: readonly number[],
  maxTokens: number,
): Promise<{ problems: string[]; where: string; agreed: boolean }> {
  const prompt = Array.from({ length: SEED_PROMPT }, () => plain[rng.int(plain.length)]!);
  const first = 1 + rng.int(1_000_000);
  const ask = async (seed: number): Promise<string> => {
    const request = { prompt, maxTokens, ignoreEos: true, sampling: { temperature: 1, topP: 0.95, seed } };
    const answer = await candidate.plain(request);
    findings.rule(COUNTS_RULE, problemsOf(answer, request, prompt.length, tokenizer), "sampled completion");
    return answer.ids.join(" ");
  };
  const sample = await ask(first);
  const again = await ask(first);
  const problems = again === sample ? [] : [`seed ${first} gives the ids ${sample}, then ${again}`];
  let others = 0;
  let same = true;
  while (same && others < SEED_TRIES) same = (await ask(first + ++others)) === sample;
  if (same) problems.push(`the seeds ${first} to ${first + others} all give the ids ${sample}`);
  return { problems, where: prompt.join(" "), agreed: same };
}
