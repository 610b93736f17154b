import type { IncomingMessage, ServerResponse } from "node:http";
import { breakOff, piecesOf, scriptedHttp, sendJson, untilRead } from "./scripted-http.ts";

/** A call in an answer. json: the arguments as they are written; default: those of `input`. id: null: the server gives none. */
export interface ScriptCall {
  tool: string;
  input?: unknown;
  json?: string;
  id?: string | null;
}

export interface ScriptSaid {
  reasoning?: string;
  text?: string;
  calls?: ScriptCall[];
  refusal?: string;
  /** Default: tool_calls or stop. null: the stream ends without one. */
  finish?: string | null;
  /** null: the server does not count. Default: 1,000 tokens in, none of them cached, and 100 out. */
  usage?: { prompt_tokens: number; completion_tokens: number; prompt_tokens_details?: { cached_tokens: number } } | null;
  /** Pieces of calls without an index, as some servers have them. */
  noIndex?: true;
}

/**
 * What one request is answered with. cut: the connection breaks in the middle of the last call, or of the text. stall: nothing more comes there.
 * hang: no answer at all.
 * flat: the error without an `error` around it, as SGLang has it. error: in the stream, after what was said, as vLLM and llama-server have it.
 * chunk: this, whatever it is, as the only chunk.
 */
export type ChatScript =
  | ScriptSaid
  | ({ cut: true } & ScriptSaid)
  | ({ error: { message: string; code?: number | string } } & ScriptSaid)
  | { status: number; message: string; retryAfter?: string; flat?: true }
  | { chunk: unknown }
  | ({ stall: true } & ScriptSaid)
  | { hang: true };

export interface ChatAsked {
  path: string;
  body: Record<string, unknown> & { messages: Record<string, unknown>[] };
  headers: IncomingMessage["headers"];
}

/** An endpoint of chat completions over real HTTP with SSE, answering by script. Its `url` is the base that clients are given. */
export class ChatServer implements AsyncDisposable {
  readonly asked: ChatAsked[] = [];
  /** Fulfilled when a request is left without an answer, or its client waits in the middle of one. */
  readonly stalled: Promise<unknown>;
  readonly url: string;
  readonly #close: () => Promise<void>;
  readonly #stall: (stalled: unknown) => void;

  private constructor(url: string, close: () => Promise<void>) {
    ({ promise: this.stalled, resolve: this.#stall } = Promise.withResolvers<unknown>());
    this.url = `${url}/v1`;
    this.#close = close;
  }

  /** `script` is asked for each request, with how many came before it. */
  static async start(script: (asked: ChatAsked, before: number) => ChatScript): Promise<ChatServer> {
    const { url, close } = await scriptedHttp(({ path, body, headers }, response) => {
      const asked: ChatAsked = { path, body: body as ChatAsked["body"], headers };
      const before = server.asked.push(asked) - 1;
      const scripted = script(asked, before);
      answer(response, String(asked.body["model"]), scripted);
      if ("hang" in scripted) server.#stall(undefined);
      if ("stall" in scripted) server.#stall(untilRead(response));
    });
    const server = new ChatServer(url, close);
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}

function answer(response: ServerResponse, model: string, script: ChatScript): void {
  if ("hang" in script) return;
  if ("status" in script) {
    const error = { object: "error", message: script.message, type: "error", code: script.status };
    sendJson(response, script.status, script.flat ? error : { error }, script.retryAfter);
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (data: unknown) => response.write(`data: ${JSON.stringify(data)}\n\n`);
  const chunk = (choices: unknown[], more: object = {}) =>
    send({ id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model, choices, ...more });
  const say = (delta: object, finish_reason: string | null = null) => chunk([{ index: 0, delta, finish_reason }]);
  if ("chunk" in script) {
    send(script.chunk);
    response.end("data: [DONE]\n\n");
    return;
  }
  const deltas = [{ role: "assistant", content: "" }, ...deltasOf(script)];
  const broken = "cut" in script || "stall" in script;
  for (const delta of broken ? deltas.slice(0, -1) : deltas) say(delta);
  if ("cut" in script) breakOff(response);
  if (broken) return;
  if ("error" in script) {
    send({ error: script.error });
    response.end("data: [DONE]\n\n");
    return;
  }
  const finish = script.finish === undefined ? (script.calls ? "tool_calls" : "stop") : script.finish;
  if (finish !== null) say({}, finish);
  const usage = script.usage === undefined ? { prompt_tokens: 1000, completion_tokens: 100 } : script.usage;
  if (usage) chunk([], { usage: { prompt_tokens_details: null, ...usage } });
  response.end("data: [DONE]\n\n");
}

function deltasOf({ reasoning = "", text = "", calls = [], refusal = "", noIndex }: ScriptSaid): object[] {
  return [
    ...piecesOf(reasoning, 9).map((reasoning_content) => ({ reasoning_content })),
    ...piecesOf(text, 9).map((content) => ({ content })),
    ...piecesOf(refusal, 9).map((piece) => ({ refusal: piece })),
    ...calls.flatMap(({ tool, input, json, id = `call_${tool}` }, i) => {
      const at = noIndex ? {} : { index: i };
      const pieces = piecesOf(json ?? JSON.stringify(input), 7);
      const head = { ...at, ...(id === null ? {} : { id }), type: "function", function: { name: tool, arguments: "" } };
      return [head, ...pieces.map((piece) => ({ ...at, function: { arguments: piece } }))].map((call) => ({ tool_calls: [call] }));
    }),
  ];
}
