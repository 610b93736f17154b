import type { IncomingMessage, ServerResponse } from "node:http";
import { breakpointsOf, MOST_BREAKPOINTS, PromptCache, promptTokens, tokensOf, type Cacheable, type InputTokens } from "./prompt-cache.ts";
import { breakOff, piecesOf, scriptedHttp, sendJson, untilRead, type Posted } from "./scripted-http.ts";

/** A part of an answer. json: the arguments as they are written, where they are to be no JSON. */
export type ScriptBlock =
  | { text: string }
  | { tool: string; input: unknown; id?: string }
  | { tool: string; json: string; id?: string }
  | { thinking: string; signature: string };

/**
 * What one request is answered with. cut: the connection breaks in the middle of the last block; end: the stream ends there without a break;
 * stall: nothing more comes.
 * hang: no answer at all. error: an event in the middle of the stream.
 * usage: what is billed; default for a reply: 1,000 tokens in and 100 out; for blocks: what the cache of prompts and the answer's bytes make (÷ 3).
 */
export type Script =
  | { reply: string; usage?: Usage; stop?: string }
  | { blocks: ScriptBlock[]; usage?: Usage; stop?: string }
  | { status: number; type: string; message: string; retryAfter?: string }
  | { cut: true | "end" | "stall"; blocks?: ScriptBlock[] }
  | { error: string; message: string }
  | { hang: true };
type Usage = Partial<InputTokens> & { output_tokens: number };

export interface Asked {
  body: Omit<Cacheable, "messages"> & {
    max_tokens: number;
    messages: { role: string; content: string | Record<string, unknown>[] }[];
    output_config?: unknown;
  };
  headers: IncomingMessage["headers"];
  /** When all of it was here, and when the last byte of a whole answer was written, in ms by this process's monotonic clock. */
  at: number;
  sent: Promise<number>;
}

/** All text of a message: its own, and that of its tools' answers. */
export const textOf = (message: Asked["body"]["messages"][number] | undefined): string =>
  typeof message?.content === "string"
    ? message.content
    : (message?.content ?? []).map(({ text, content }) => [text, content].filter((t) => typeof t === "string").join("")).join("\n");

/** Anthropic's Messages API over real HTTP with SSE, answering by script, with a cache of prompts and the count of tokens. */
export class MessagesServer implements AsyncDisposable {
  readonly asked: Asked[] = [];
  /** Bodies of requests to count tokens; they are no part of `asked`. */
  readonly counted: unknown[] = [];
  /** Fulfilled when a request is left without an answer, or its client waits in the middle of one. */
  readonly stalled: Promise<unknown>;
  readonly url: string;
  readonly #close: () => Promise<void>;
  readonly #stall: (stalled: unknown) => void;

  private constructor(url: string, close: () => Promise<void>) {
    ({ promise: this.stalled, resolve: this.#stall } = Promise.withResolvers<unknown>());
    this.url = url;
    this.#close = close;
  }

  /** `script` is asked for each request, with how many came before it. counts: whether tokens are counted, as some endpoints don't. */
  static async start(script: (asked: Asked, before: number) => Script | Promise<Script>, { counts = true } = {}): Promise<MessagesServer> {
    const cache = new PromptCache();
    const { url, close } = await scriptedHttp(({ path, body, headers, at }: Posted, response) => {
      if (path.startsWith("/v1/messages/count_tokens")) {
        server.counted.push(body);
        if (counts) sendJson(response, 200, { input_tokens: promptTokens(body as Cacheable) });
        else sendError(response, 404, "not_found_error", "Not Found");
        return;
      }
      const { promise: sent, resolve: whole } = Promise.withResolvers<number>();
      const asked: Asked = { body: body as Asked["body"], headers, at, sent };
      const before = server.asked.push(asked) - 1;
      const scripted = script(asked, before);
      if (scripted instanceof Promise) {
        void later(response, scripted).then((now) => answer(response, asked.body, cache, now, whole));
        return;
      }
      answer(response, asked.body, cache, scripted, whole);
      if ("hang" in scripted) server.#stall(undefined);
      if ("cut" in scripted && scripted.cut === "stall") server.#stall(untilRead(response));
    });
    const server = new MessagesServer(url, close);
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}

const sendError = (response: ServerResponse, status: number, type: string, message: string, retryAfter?: string): void =>
  sendJson(response, status, { type: "error", error: { type, message } }, retryAfter);

function answer(response: ServerResponse, asked: Asked["body"], cache: PromptCache, script: Script, whole: (at: number) => void): void {
  if ("hang" in script) return;
  if ("status" in script) {
    sendError(response, script.status, script.type, script.message, script.retryAfter);
    return;
  }
  const breakpoints = breakpointsOf(asked);
  if (breakpoints > MOST_BREAKPOINTS) {
    const message = `A maximum of ${MOST_BREAKPOINTS} blocks with cache_control may be provided. Found ${breakpoints}.`;
    sendError(response, 400, "invalid_request_error", message);
    return;
  }
  const send = (event: { type: string; [key: string]: unknown }) =>
    response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  const blocks: ScriptBlock[] =
    "reply" in script ? [{ text: script.reply }] : "error" in script ? [] : (script.blocks ?? [{ text: '{"action": "try", "sk' }]);
  const billed = ("usage" in script && script.usage) || ("reply" in script ? { input_tokens: 1000, output_tokens: 100 } : undefined);
  const usage: Usage = billed ?? { ...cache.take(asked), output_tokens: tokensOf(JSON.stringify(blocks)) };
  if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream" });
  const { model } = asked;
  const message = { id: "msg_1", type: "message", role: "assistant", model, content: [], stop_reason: null, stop_sequence: null };
  send({ type: "message_start", message: { ...message, usage: { ...usage, output_tokens: 1 } } });
  send({ type: "ping" });
  for (const [index, block] of blocks.entries()) {
    const { start, deltas } = streamOf(block, index);
    send({ type: "content_block_start", index, content_block: start });
    const broken = "cut" in script && index === blocks.length - 1;
    for (const delta of broken ? deltas.slice(0, Math.ceil(deltas.length / 2)) : deltas)
      send({ type: "content_block_delta", index, delta });
    if (!broken) send({ type: "content_block_stop", index });
  }
  if ("cut" in script) {
    if (script.cut === "end") response.end();
    else if (script.cut === true) breakOff(response);
    return;
  }
  if ("error" in script) {
    send({ type: "error", error: { type: script.error, message: script.message } });
    response.end();
    return;
  }
  const stop = ("stop" in script && script.stop) || (blocks.some((b) => "tool" in b) ? "tool_use" : "end_turn");
  send({ type: "message_delta", delta: { stop_reason: stop, stop_sequence: null }, usage: { output_tokens: usage.output_tokens } });
  send({ type: "message_stop" });
  response.end();
  whole(performance.now());
}

/** A model that takes its time: the stream begins at once and is kept alive until the answer is there, so only blocks or a reply may follow. */
async function later(response: ServerResponse, script: Promise<Script>): Promise<Script> {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.flushHeaders();
  const ping = setInterval(() => response.write('event: ping\ndata: {"type":"ping"}\n\n'), 5_000);
  return script.finally(() => clearInterval(ping));
}

/** As the API streams a block: empty at first, then in pieces. */
function streamOf(block: ScriptBlock, index: number): { start: object; deltas: object[] } {
  if ("tool" in block) {
    const json = "json" in block ? block.json : JSON.stringify(block.input);
    return {
      start: { type: "tool_use", id: block.id ?? `toolu_${index}`, name: block.tool, input: {} },
      deltas: ["", ...piecesOf(json, 7)].map((partial_json) => ({ type: "input_json_delta", partial_json })),
    };
  }
  if ("thinking" in block) {
    const deltas = piecesOf(block.thinking, 7).map((thinking) => ({ type: "thinking_delta", thinking }));
    return {
      start: { type: "thinking", thinking: "", signature: "" },
      deltas: [...deltas, { type: "signature_delta", signature: block.signature }],
    };
  }
  return { start: { type: "text", text: "" }, deltas: piecesOf(block.text, 40).map((text) => ({ type: "text_delta", text })) };
}
