import Anthropic from "@anthropic-ai/sdk";
import type { TurnFailureCode, TurnOutcome, TurnUsage } from "@vibeserve/shared";
import { plain } from "./prompt.ts";
import type { Provider, TurnRequest } from "./provider.ts";

export interface AnthropicSettings {
  apiKey: string;
  /** Default: the SDK's own. */
  baseUrl: string | null;
}

/** A planner's answer takes a minute at most; a connection that says nothing for so long is dead. */
const TIMEOUT_MS = 300_000;

/** Anthropic's Messages API: streamed, so that a long answer is not taken for a dead connection; the system text is a cache breakpoint. */
export function anthropic({ apiKey, baseUrl }: AnthropicSettings): Provider {
  // Retries are the caller's: each attempt is reserved, recorded and shown.
  const client = new Anthropic({
    apiKey,
    authToken: null,
    ...(baseUrl === null ? {} : { baseURL: baseUrl }),
    maxRetries: 0,
    timeout: TIMEOUT_MS,
  });
  return {
    name: "anthropic",
    async turn(request: TurnRequest, signal: AbortSignal): Promise<TurnOutcome> {
      let begun = false;
      try {
        const message = await client.messages
          .stream(
            {
              model: request.model,
              max_tokens: request.maxTokens,
              system: [{ type: "text", text: request.system, cache_control: { type: "ephemeral" } }],
              messages: request.messages.map(({ role, content }) => ({ role, content })),
              output_config: { format: { type: "json_schema", schema: { ...request.schema } } },
            },
            { signal },
          )
          .on("streamEvent", () => (begun = true))
          .finalMessage();
        return outcomeOf(message);
      } catch (error) {
        if (signal.aborted) throw error;
        return failureOf(error, begun);
      }
    },
  };
}

function outcomeOf(message: Anthropic.Message): TurnOutcome {
  const usage = usageOf(message.usage);
  if (message.stop_reason === "refusal") return failed("refusal", "the model refused to answer", usage);
  if (message.stop_reason === "model_context_window_exceeded") return failed("context-overflow", "the prompt and answer do not fit", usage);
  if (message.stop_reason === "max_tokens") return failed("cut-short", "the answer came to its limit of tokens", usage);
  const reply = message.content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("");
  return { status: "answered", reply: reply.slice(0, 65_536), usage };
}

const usageOf = (u: Anthropic.Usage): TurnUsage => ({
  input: u.input_tokens,
  output: u.output_tokens,
  cacheRead: u.cache_read_input_tokens ?? 0,
  cacheWrite: u.cache_creation_input_tokens ?? 0,
});

/** By status: https://platform.claude.com/docs/en/api/errors; an error within a stream has a type only. */
const BY_STATUS: Readonly<Record<number, TurnFailureCode>> = {
  401: "bad-key",
  402: "bad-key",
  403: "bad-key",
  404: "no-such-model",
  413: "context-overflow",
  429: "rate-limited",
  529: "overloaded",
};
const TEMPORARY: ReadonlySet<TurnFailureCode> = new Set(["rate-limited", "overloaded", "unreachable", "cut-off"]);

function failureOf(error: unknown, begun: boolean): TurnOutcome {
  const message = error instanceof Error ? error.message : String(error);
  if (begun) return failed("cut-off", message, null);
  // Without a status it never got an answer.
  const answer = error instanceof Anthropic.APIError ? (error as { status?: number; headers?: Headers }) : {};
  if (answer.status === undefined) return failed("unreachable", message, null);
  const code = BY_STATUS[answer.status] ?? (answer.status >= 500 ? "overloaded" : "refused-request");
  const seconds = Number(answer.headers?.get("retry-after") ?? NaN);
  return failed(code, message, null, Number.isFinite(seconds) && seconds >= 0 ? Math.round(seconds * 1000) : null);
}

function failed(code: TurnFailureCode, message: string, usage: TurnUsage | null, retryAfterMs: number | null = null): TurnOutcome {
  return { status: "failed", code, message: plain(message).slice(0, 2_000), temporary: TEMPORARY.has(code), retryAfterMs, usage };
}
