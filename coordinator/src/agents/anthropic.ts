import Anthropic from "@anthropic-ai/sdk";
import { TurnUsage } from "@vibeserve/shared";
import { inputOf, type Block, type Message, type ToolSpec } from "./conversation.ts";
import { failureOf } from "./failures.ts";
import { reservedUsage, turnFailed as failed, type Provider, type ProviderOutcome, type TurnRequest } from "./provider.ts";

export interface AnthropicSettings {
  apiKey: string;
  /** Default: the SDK's own. */
  baseUrl: string | null;
}

/** A planner's answer takes a minute at most; a connection that says nothing for so long is dead. */
const TIMEOUT_MS = 300_000;
/** Nothing is computed for a count; without it the caller goes on by its own bound. */
const COUNT_MS = 20_000;

/** What any client of the Messages API is made with. Retries are the caller's: each attempt is reserved, recorded and shown. */
export const CLIENT = { maxRetries: 0, timeout: TIMEOUT_MS } as const;

export function anthropic({ apiKey, baseUrl }: AnthropicSettings): Provider {
  const client = new Anthropic({ ...CLIENT, apiKey, authToken: null, ...(baseUrl === null ? {} : { baseURL: baseUrl }) });
  return overMessages("anthropic", client.messages);
}

/** Anthropic's Messages API, streamed, so that a long answer is not taken for a dead connection, by whichever client. */
export function overMessages(name: string, client: Pick<Anthropic.Messages, "create" | "countTokens">): Provider {
  return {
    name,
    async turn(request: TurnRequest, signal: AbortSignal): Promise<ProviderOutcome> {
      let begun = false;
      try {
        const events = await client.create({ ...bodyOf(request), stream: true }, { signal, headers: { "x-vibeserve-turn": request.turn } });
        begun = true;
        const said = await saidIn(events);
        // The client ends the stream quietly when it is aborted.
        signal.throwIfAborted();
        return outcomeOf(said, request);
      } catch (error) {
        if (signal.aborted) throw error;
        return failureOf(error, begun);
      }
    },
    async count(request, signal) {
      const { max_tokens: _, ...body } = bodyOf(request);
      try {
        const counted: { input_tokens?: number } = await client.countTokens(body, { signal, timeout: COUNT_MS });
        return counted.input_tokens ?? null;
      } catch (error) {
        if (signal.aborted) throw error;
        return null;
      }
    },
  };
}

const CACHED = { cache_control: { type: "ephemeral" } } as const;

/**
 * Breakpoints of the cache: after the tools and the system text, which all experiments of a campaign share, and at the ends of the last two messages of ours,
 * so that each turn reads what the one before it wrote.
 */
function bodyOf({ model, maxTokens, system, messages: all, reply, effort }: TurnRequest): Anthropic.MessageCreateParamsNonStreaming {
  // A model may say nothing at all; the API takes no such message back.
  const messages = all.filter((m) => m.role === "user" || m.content.some((b) => paramOf(b).length > 0));
  const ours = messages.flatMap((m, i) => (m.role === "user" ? [i] : [])).slice(-2);
  const output_config = {
    ...(reply.kind === "schema" ? { format: { type: "json_schema" as const, schema: { ...reply.schema } } } : {}),
    ...(effort === undefined ? {} : { effort }),
  };
  return {
    model,
    max_tokens: maxTokens,
    system: [{ type: "text", text: system, ...CACHED }],
    messages: messages.map((m, i) => messageOf(m, reply.kind === "tools" && ours.includes(i))),
    ...(Object.keys(output_config).length > 0 ? { output_config } : {}),
    ...(reply.kind === "tools" ? { tools: reply.tools.map(toolOf) } : {}),
  };
}

const toolOf = ({ name, description, input }: ToolSpec) => ({ name, description, input_schema: { ...input, type: "object" as const } });

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
      return block.text.trim() === "" ? [] : [{ type: "text", text: block.text }];
    case "call":
      return [{ type: "tool_use", id: block.id, name: block.tool, input: block.input }];
    case "opaque":
      return block.provider === "anthropic" ? [block.data as Anthropic.ContentBlockParam] : [];
  }
}

/** An answer as it came; stop null: it is not whole. */
interface Said {
  blocks: { block: Anthropic.ContentBlock; json: string }[];
  usage: Anthropic.Usage | null;
  stop: Anthropic.StopReason | null;
}

/** Put together here, not by the SDK's MessageStream: that takes arguments of a call that are no JSON for a broken stream, or mends them in silence. */
async function saidIn(events: AsyncIterable<Anthropic.RawMessageStreamEvent>): Promise<Said> {
  const said: Said = { blocks: [], usage: null, stop: null };
  for await (const event of events) {
    if (event.type === "message_start") said.usage = event.message.usage;
    else if (event.type === "content_block_start") said.blocks[event.index] = { block: { ...event.content_block }, json: "" };
    else if (event.type === "content_block_delta") grow(said.blocks[event.index], event.delta);
    else if (event.type === "message_delta") {
      said.stop = event.delta.stop_reason;
      // Totals; what does not apply is left out or null.
      const told = Object.fromEntries(Object.entries(event.usage).filter(([, value]) => value !== null));
      if (said.usage) Object.assign(said.usage, told);
    }
  }
  return said;
}

function grow(part: Said["blocks"][number] | undefined, delta: Anthropic.RawContentBlockDelta): void {
  if (!part) return;
  const { block } = part;
  if (delta.type === "input_json_delta") part.json += delta.partial_json;
  else if (delta.type === "text_delta" && block.type === "text") block.text += delta.text;
  else if (delta.type === "thinking_delta" && block.type === "thinking") block.thinking += delta.thinking;
  else if (delta.type === "signature_delta" && block.type === "thinking") block.signature = delta.signature;
}

function outcomeOf({ blocks, usage: told, stop }: Said, request: TurnRequest): ProviderOutcome {
  if (told === null || stop === null) return failed("cut-off", "the answer ended before its end", null);
  // An endpoint that counts wrongly: what was reserved.
  const usage = TurnUsage.safeParse(usageOf(told)).data ?? reservedUsage(request);
  if (stop === "refusal") return failed("refusal", "the model refused to answer", usage);
  if (stop === "model_context_window_exceeded") return failed("context-overflow", "the prompt and answer do not fit", usage);
  if (stop === "max_tokens") return failed("cut-short", "the answer came to its limit of tokens", usage);
  if (request.reply.kind === "tools") return { status: "said", content: blocks.flatMap((b) => [blockOf(b)]), usage };
  const reply = blocks.flatMap(({ block }) => (block.type === "text" ? [block.text] : [])).join("");
  return { status: "answered", reply: reply.slice(0, 65_536), usage };
}

function blockOf({ block, json }: Said["blocks"][number]): Block {
  if (block.type === "text") return { type: "text", text: block.text };
  // Without pieces it came whole at the start.
  if (block.type === "tool_use") return { type: "call", id: block.id, tool: block.name, input: json === "" ? block.input : inputOf(json) };
  return { type: "opaque", provider: "anthropic", data: block };
}

const usageOf = (u: Anthropic.Usage): TurnUsage => ({
  input: u.input_tokens,
  output: u.output_tokens,
  cacheRead: u.cache_read_input_tokens ?? 0,
  cacheWrite: u.cache_creation_input_tokens ?? 0,
});
