import type { Dialect } from "../../loadgen/event.ts";
import type { BenchRequest } from "./workload.ts";

/** Where the load goes: the endpoint that chat workloads are about, or the only one that streams ids. */
export const pathOf = (dialect: Dialect): string => PATHS[dialect];
const PATHS: Readonly<Record<Dialect, string>> = {
  openai: "/v1/chat/completions",
  "openai-ids": "/v1/completions",
  "llama.cpp": "/completion",
};

/** The same request in each dialect: greedy, streamed, an exact number of tokens. All but the contract's are given the chat's ids, which saves them the template. */
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
    ...(dialect === "openai" ? { messages: prompt.messages } : { prompt: prompt.ids, return_token_ids: true }),
    max_tokens: outputTokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  });
}
