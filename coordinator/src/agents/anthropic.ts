import Anthropic from "@anthropic-ai/sdk";
import type { TurnFailureCode, TurnUsage } from "@vibeserve/shared";
import type { Block, Message } from "./conversation.ts";
import { turnFailed as failed, type Provider, type ProviderOutcome, type TurnRequest } from "./provider.ts";

export interface AnthropicSettings {
  apiKey: string;
  /** Default: the SDK's own. */
  baseUrl: string | null;
}

/** A planner's answer takes a minute at most; a connection that says nothing for so long is dead. */
const TIMEOUT_MS = 300_000;

/** Anthropic's Messages API, streamed, so that a long answer is not taken for a dead connection. */
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
    async turn(request: TurnRequest, signal: AbortSignal): Promise<ProviderOutcome> {
      let begun = false;
      try {
        const message = await client.messages
          .stream(bodyOf(request), { signal, headers: { "x-vibeserve-turn": request.turn } })
          .on("streamEvent", () => (begun = true))
          .finalMessage();
        return outcomeOf(message, request);
      } catch (error) {
        if (signal.aborted) throw error;
        return failureOf(error, begun);
      }
    },
  };
}

const CACHED = { cache_control: { type: "ephemeral" } } as const;

/**
 * Breakpoints of the cache: after the tools and the system text, which all experiments of a campaign share, and at the ends of the last two messages of ours,
 * so that each turn reads what the one before it wrote.
 */
function bodyOf({ model, maxTokens, system, messages, reply }: TurnRequest): Anthropic.MessageStreamParams {
  const ours = messages.flatMap((m, i) => (m.role === "user" ? [i] : [])).slice(-2);
  return {
    model,
    max_tokens: maxTokens,
    system: [{ type: "text", text: system, ...CACHED }],
    messages: messages.map((m, i) => messageOf(m, reply.kind === "tools" && ours.includes(i))),
    ...(reply.kind === "schema"
      ? { output_config: { format: { type: "json_schema", schema: { ...reply.schema } } } }
      : {
          tools: reply.tools.map(({ name, description, input }) => ({
            name,
            description,
            input_schema: { ...input, type: "object" as const },
          })),
        }),
  };
}

function messageOf(message: Message, cached: boolean): Anthropic.MessageParam {
  if (message.role === "assistant") return { role: "assistant", content: message.content.flatMap(paramOf) };
  const content: (Anthropic.ToolResultBlockParam | Anthropic.TextBlockParam)[] = [
    ...message.answers.map(({ id, text, isError }) => ({
      type: "tool_result" as const,
      tool_use_id: id,
      content: text,
      ...(isError ? { is_error: true } : {}),
    })),
    ...(message.text === "" ? [] : [{ type: "text" as const, text: message.text }]),
  ];
  const last = content.at(-1);
  return { role: "user", content: cached && last ? [...content.slice(0, -1), { ...last, ...CACHED }] : content };
}

function paramOf(block: Block): Anthropic.ContentBlockParam[] {
  switch (block.type) {
    case "text":
      return block.text === "" ? [] : [{ type: "text", text: block.text }];
    case "call":
      return [{ type: "tool_use", id: block.id, name: block.tool, input: block.input }];
    case "opaque":
      return block.provider === "anthropic" ? [block.data as Anthropic.ContentBlockParam] : [];
  }
}

function outcomeOf(message: Anthropic.Message, request: TurnRequest): ProviderOutcome {
  const usage = usageOf(message.usage);
  if (message.stop_reason === "refusal") return failed("refusal", "the model refused to answer", usage);
  if (message.stop_reason === "model_context_window_exceeded") return failed("context-overflow", "the prompt and answer do not fit", usage);
  if (message.stop_reason === "max_tokens") return failed("cut-short", "the answer came to its limit of tokens", usage);
  if (request.reply.kind === "tools") return { status: "said", content: message.content.map(blockOf), usage };
  const reply = message.content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("");
  return { status: "answered", reply: reply.slice(0, 65_536), usage };
}

function blockOf(block: Anthropic.ContentBlock): Block {
  if (block.type === "text") return { type: "text", text: block.text };
  if (block.type === "tool_use") return { type: "call", id: block.id, tool: block.name, input: block.input };
  return { type: "opaque", provider: "anthropic", data: block };
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

function failureOf(error: unknown, begun: boolean): ProviderOutcome {
  const message = error instanceof Error ? error.message : String(error);
  if (begun) return failed("cut-off", message, null);
  // Without a status it never got an answer.
  const answer = error instanceof Anthropic.APIError ? (error as { status?: number; headers?: Headers }) : {};
  if (answer.status === undefined) return failed("unreachable", message, null);
  const code = BY_STATUS[answer.status] ?? (answer.status >= 500 ? "overloaded" : "refused-request");
  const seconds = Number(answer.headers?.get("retry-after") ?? NaN);
  return failed(code, message, null, Number.isFinite(seconds) && seconds >= 0 ? Math.round(seconds * 1000) : null);
}
