import type { TurnUsage } from "@vibeserve/shared";
import { z } from "zod";
import { inputOf, type Block } from "./conversation.ts";

const Tokens = z.int().min(0).nullish();
/** A chunk as servers really send them: vLLM, SGLang and llama-server leave out, or set to null, what OpenAI always has. */
const Chunk = z.object({
  choices: z
    .array(
      z.object({
        delta: z
          .object({
            content: z.string().nullish(),
            refusal: z.string().nullish(),
            reasoning: z.string().nullish(),
            reasoning_content: z.string().nullish(),
            tool_calls: z
              .array(
                z.object({
                  index: z.int().nullish(),
                  id: z.string().nullish(),
                  function: z.object({ name: z.string().nullish(), arguments: z.string().nullish() }).nullish(),
                }),
              )
              .nullish(),
          })
          .nullish(),
        finish_reason: z.string().nullish(),
      }),
    )
    .nullish(),
  usage: z
    .object({
      prompt_tokens: Tokens,
      completion_tokens: Tokens,
      prompt_tokens_details: z.object({ cached_tokens: Tokens }).nullish(),
    })
    .nullish(),
});
type Piece = NonNullable<NonNullable<NonNullable<z.infer<typeof Chunk>["choices"]>[number]["delta"]>["tool_calls"]>[number];

interface Call {
  id: string;
  tool: string;
  json: string;
}

/** A whole answer. finish: the server's word for why it ended; null: it did not say, so it is not whole. usage: null where the server told none. */
export interface ChatReply {
  text: string;
  refusal: string;
  /** By the key under which the server sent it, and wants it back. */
  reasoning: { reasoning?: string; reasoning_content?: string };
  calls: Call[];
  finish: string | null;
  usage: TurnUsage | null;
}

/** Puts the pieces of a streamed chat completion together. Throws ZodError where a chunk is none, and what the stream throws. */
export async function chatReply(chunks: AsyncIterable<unknown>): Promise<ChatReply> {
  const reply: ChatReply = { text: "", refusal: "", reasoning: {}, calls: [], finish: null, usage: null };
  const byIndex = new Map<number, Call>();
  for await (const raw of chunks) {
    const { choices, usage } = Chunk.parse(raw);
    if (usage)
      reply.usage = usageOf(usage.prompt_tokens ?? 0, usage.completion_tokens ?? 0, usage.prompt_tokens_details?.cached_tokens ?? 0);
    const [choice] = choices ?? [];
    reply.finish = choice?.finish_reason ?? reply.finish;
    reply.text += choice?.delta?.content ?? "";
    reply.refusal += choice?.delta?.refusal ?? "";
    for (const key of ["reasoning", "reasoning_content"] as const) {
      const more = choice?.delta?.[key];
      if (more) reply.reasoning[key] = (reply.reasoning[key] ?? "") + more;
    }
    for (const piece of choice?.delta?.tool_calls ?? []) {
      const call = callOf(reply.calls, byIndex, piece);
      call.id ||= piece.id ?? "";
      call.tool ||= piece.function?.name ?? "";
      call.json += piece.function?.arguments ?? "";
    }
  }
  return reply;
}

/** The call that a piece goes on with. Where the server gives no index, a new id begins the next call. */
function callOf(calls: Call[], byIndex: Map<number, Call>, { index, id }: Piece): Call {
  const last = calls.at(-1);
  const known = typeof index === "number" ? byIndex.get(index) : id && last?.id !== id ? undefined : last;
  if (known) return known;
  const call: Call = { id: "", tool: "", json: "" };
  calls.push(call);
  if (typeof index === "number") byIndex.set(index, call);
  return call;
}

const usageOf = (prompt: number, output: number, cached: number): TurnUsage => ({
  input: Math.max(prompt - cached, 0),
  output,
  cacheRead: Math.min(cached, prompt),
  cacheWrite: 0,
});

/** As blocks. `turn` makes ids that are missing different in each turn of a conversation. */
export function blocksOf({ text, reasoning, calls }: ChatReply, provider: string, turn: number): Block[] {
  return [
    ...(Object.keys(reasoning).length === 0 ? [] : [{ type: "opaque" as const, provider, data: reasoning }]),
    ...(text === "" ? [] : [{ type: "text" as const, text }]),
    ...calls.map(({ id, tool, json }, i) => ({
      type: "call" as const,
      id: id || `call-${turn}-${i}`,
      tool: tool || "unnamed",
      input: inputOf(json),
    })),
  ];
}
