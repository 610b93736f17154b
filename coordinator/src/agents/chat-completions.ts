import OpenAI from "openai";
import { z } from "zod";
import { blocksOf, chatReply, type ChatReply } from "./chat-stream.ts";
import type { Message } from "./conversation.ts";
import { failureOf } from "./failures.ts";
import { reservedUsage, turnFailed as failed, type Provider, type ProviderOutcome, type TurnRequest } from "./provider.ts";

export interface ChatSettings {
  /** With its version: `http://127.0.0.1:8000/v1`. */
  baseUrl: string;
  /** null: no Authorization is sent, as servers of one's own want it. */
  apiKey: string | null;
}

const NAME = "openai-compatible";
/** Until the answer begins: a busy server may let it wait. Between two pieces of it Node's fetch waits as long. */
const TIMEOUT_MS = 300_000;

/**
 * Chat completions with tools, streamed: vLLM, SGLang, llama-server, OpenAI and what speaks like them. Import this file only where such an endpoint is
 * named: its client takes 36 MB of memory.
 */
export function chatCompletions({ baseUrl, apiKey }: ChatSettings): Provider {
  // Nothing from the environment: config.ts alone reads it. Retries are the caller's: each attempt is reserved, recorded and shown.
  const client = new OpenAI({
    ...{ baseURL: baseUrl, apiKey: apiKey ?? "none", adminAPIKey: null, organization: null, project: null, webhookSecret: null },
    ...(apiKey === null ? { defaultHeaders: { Authorization: null } } : {}),
    ...{ maxRetries: 0, timeout: TIMEOUT_MS, logLevel: "off" as const },
  });
  // Older servers of one's own ignore max_completion_tokens, and then answer without end; OpenAI's newer models refuse max_tokens and say so.
  let limit: Limit = "max_tokens";
  const ask = async (request: TurnRequest, signal: AbortSignal): Promise<ProviderOutcome> => {
    let begun = false;
    try {
      const chunks = await client.chat.completions.create(bodyOf(request, limit), { signal });
      begun = true;
      const reply = await chatReply(chunks);
      // The client ends the stream quietly when it is aborted.
      signal.throwIfAborted();
      return outcomeOf(reply, request);
    } catch (error) {
      if (signal.aborted) throw error;
      if (error instanceof z.ZodError)
        return failed("refused-request", `not an answer of chat completions: ${z.prettifyError(error)}`, null);
      return failureOf(error, begun);
    }
  };
  return {
    name: NAME,
    async turn(request, signal) {
      const outcome = await ask(request, signal);
      if (limit !== "max_tokens" || outcome.status !== "failed" || outcome.code !== "refused-request") return outcome;
      if (!/max_tokens\b.*max_completion_tokens/s.test(outcome.message)) return outcome;
      limit = "max_completion_tokens";
      return ask(request, signal);
    },
  };
}

type Limit = "max_tokens" | "max_completion_tokens";
type Param = OpenAI.ChatCompletionMessageParam;

function bodyOf(request: TurnRequest, limit: Limit): OpenAI.ChatCompletionCreateParamsStreaming {
  const { model, maxTokens, system, messages, reply, effort } = request;
  return {
    ...{ model, [limit]: maxTokens, stream: true as const, stream_options: { include_usage: true } },
    messages: [{ role: "system", content: system }, ...messages.flatMap(paramsOf)],
    ...(effort === undefined ? {} : { reasoning_effort: effort }),
    ...(reply.kind === "schema"
      ? { response_format: { type: "json_schema", json_schema: { name: "reply", strict: true, schema: { ...reply.schema } } } }
      : reply.tools.length === 0
        ? {} // An empty list is refused.
        : {
            tools: reply.tools.map(({ name, description, input }) => ({
              type: "function",
              function: { name, description, parameters: { ...input } },
            })),
          }),
  };
}

function paramsOf(message: Message): Param[] {
  if (message.role === "user")
    return [
      // There is no other place for "it went wrong".
      ...message.answers.map(({ id, text, isError }): Param => ({
        role: "tool",
        tool_call_id: id,
        content: isError ? `error: ${text}` : text,
      })),
      ...(message.text === "" ? [] : [{ role: "user" as const, content: message.text }]),
    ];
  const text = message.content.flatMap((b) => (b.type === "text" ? [b.text] : [])).join("");
  const tool_calls = message.content.flatMap((b) =>
    b.type === "call" ? [{ type: "function" as const, id: b.id, function: { name: b.tool, arguments: JSON.stringify(b.input) } }] : [],
  );
  // Whoever reasons between calls wants its reasoning back, under the key it came with.
  const reasoning = message.content.flatMap((b) => (b.type === "opaque" && b.provider === NAME ? [b.data] : []))[0];
  const said = tool_calls.length === 0 ? { content: text } : { content: text || null, tool_calls };
  return [{ role: "assistant", ...said, ...(typeof reasoning === "object" ? reasoning : {}) }];
}

function outcomeOf(reply: ChatReply, request: TurnRequest): ProviderOutcome {
  // A server that counts nothing: what was reserved.
  const usage = reply.usage ?? reservedUsage(request);
  switch (reply.finish) {
    case "stop":
    case "tool_calls":
    case "function_call":
      break;
    case "length":
      return failed("cut-short", "the answer came to its limit of tokens", usage);
    case "content_filter":
      return failed("refusal", "the answer was filtered", usage);
    default:
      return failed(
        "cut-off",
        reply.finish === null ? "the answer ended before its end" : `the answer was ended: ${reply.finish}`,
        reply.usage,
      );
  }
  if (reply.refusal !== "") return failed("refusal", reply.refusal, usage);
  if (request.reply.kind === "tools") return { status: "said", content: blocksOf(reply, NAME, request.messages.length), usage };
  return { status: "answered", reply: reply.text.slice(0, 65_536), usage };
}
