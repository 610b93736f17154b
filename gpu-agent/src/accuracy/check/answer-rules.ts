import { comparable, type Tokenizer } from "../../tokenizer/index.ts";
import { quote } from "./candidate-fault.ts";
import type { ChatRequest, ServedAnswer } from "./candidate.ts";

/** What is wrong with an answer beside its ids: counts, usage, finish reason, text. Empty if all agree. */
export function problemsOf(
  answer: ServedAnswer,
  request: Omit<ChatRequest, "messages">,
  promptTokens: number,
  tokenizer: Tokenizer,
): string[] {
  const { ids, usage, finish, text } = answer;
  const problems: string[] = [];
  const stray = ids.find((id) => id >= tokenizer.vocabSize);
  if (stray !== undefined) return [`token id ${stray} is outside the vocabulary`];
  if (!answer.done) problems.push("the stream ends without [DONE]");
  if (ids.length > request.maxTokens) problems.push(`${ids.length} ids were served, max_tokens is ${request.maxTokens}`);
  if (request.ignoreEos === true && !request.stop && ids.length !== request.maxTokens)
    problems.push(`${ids.length} ids were served, ignore_eos and max_tokens ask for ${request.maxTokens}`);
  if (request.ignoreEos !== true && ids.includes(tokenizer.eosId)) problems.push("the end token is among token_ids");
  if (answer.idChunks !== ids.length && !request.stop)
    problems.push(`${ids.length} ids came in ${answer.idChunks} chunks; one chunk per token is asked for`);
  const expected = ids.length === request.maxTokens ? ["length", "stop"] : ["stop"];
  if (finish === null || !expected.includes(finish))
    problems.push(`finish_reason is ${JSON.stringify(finish)} after ${ids.length} of ${request.maxTokens} tokens`);
  if (finish === "stop" && request.ignoreEos === true && !request.stop) problems.push('finish_reason is "stop" in spite of ignore_eos');
  if (!usage) problems.push("usage is missing, though include_usage was asked for");
  else {
    if (usage.completion_tokens !== ids.length)
      problems.push(`usage says ${usage.completion_tokens} completion tokens, ${ids.length} ids were served`);
    if (usage.prompt_tokens !== promptTokens)
      problems.push(`usage says ${usage.prompt_tokens} prompt tokens, the prompt has ${promptTokens}`);
    if (usage.total_tokens !== usage.prompt_tokens + usage.completion_tokens)
      problems.push(`usage.total_tokens is ${usage.total_tokens}, no sum of the others`);
  }
  const decoded = comparable(tokenizer.decode(ids));
  const said = comparable(text);
  // A stop string cuts the text, not the ids that were decided.
  const agrees = request.stop && finish === "stop" ? decoded.startsWith(said) : decoded === said;
  if (!agrees) problems.push(`the ids decode to ${quote(decoded, 120)}, the text is ${quote(said, 120)}`);
  return problems;
}
