import type { Dialect } from "../../loadgen/event.ts";
import type { BenchRequest } from "./workload.ts";

/** Where the load goes: the endpoint that chat workloads are about, or the only one that streams ids. */
export const pathOf = (dialect: Dialect): string => (dialect === "openai" ? "/v1/chat/completions" : "/completion");

/** The same request in each dialect: greedy, streamed, an exact number of tokens. llama.cpp is given the chat's ids, which saves it the template. */
export function bodyOf(dialect: Dialect, { prompt, outputTokens }: BenchRequest): string {
  if (dialect === "llama.cpp") {
    return JSON.stringify({
      prompt: prompt.ids,
      n_predict: outputTokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      return_tokens: true,
    });
  }
  return JSON.stringify({
    messages: prompt.messages,
    max_tokens: outputTokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  });
}
