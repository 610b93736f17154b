import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What one request is answered with. cut: the connection breaks in the middle of the stream. hang: no answer at all. */
export type Script =
  | { reply: string; usage?: { input_tokens: number; output_tokens: number }; stop?: string }
  | { status: number; type: string; message: string; retryAfter?: string }
  | { cut: true }
  | { hang: true };

export interface Asked {
  body: { model: string; max_tokens: number; system: unknown; messages: { role: string; content: string }[]; output_config?: unknown };
  headers: IncomingMessage["headers"];
}

/** Anthropic's Messages API over real HTTP with SSE, answering by script. */
export class MessagesServer implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly url: string;
  readonly #close: () => Promise<void>;

  private constructor(url: string, close: () => Promise<void>) {
    this.url = url;
    this.#close = close;
  }

  /** `script` is asked for each request, with how many came before it. */
  static async start(script: (asked: Asked, before: number) => Script): Promise<MessagesServer> {
    const http = createServer((request, response) => {
      void readBody(request).then((body) => {
        const asked: Asked = { body: JSON.parse(body) as Asked["body"], headers: request.headers };
        const before = server.asked.push(asked) - 1;
        answer(response, asked.body.model, script(asked, before));
      });
    });
    http.listen(0, "127.0.0.1");
    await once(http, "listening");
    const server = new MessagesServer(`http://127.0.0.1:${(http.address() as AddressInfo).port}`, async () => {
      http.closeAllConnections();
      http.close();
      await once(http, "close");
    });
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

function answer(response: ServerResponse, model: string, script: Script): void {
  if ("hang" in script) return;
  if ("status" in script) {
    const headers = {
      "content-type": "application/json",
      ...(script.retryAfter === undefined ? {} : { "retry-after": script.retryAfter }),
    };
    response.writeHead(script.status, headers);
    response.end(JSON.stringify({ type: "error", error: { type: script.type, message: script.message } }));
    return;
  }
  const send = (event: { type: string; [key: string]: unknown }) =>
    response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  const usage = ("usage" in script && script.usage) || { input_tokens: 1000, output_tokens: 100 };
  response.writeHead(200, { "content-type": "text/event-stream" });
  const message = { id: "msg_1", type: "message", role: "assistant", model, content: [], stop_reason: null, stop_sequence: null };
  send({ type: "message_start", message: { ...message, usage: { ...usage, output_tokens: 1 } } });
  send({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } });
  if ("cut" in script) {
    send({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: '{"action": "tr' } });
    setTimeout(() => response.destroy(), 20);
    return;
  }
  // In two pieces, as streams come.
  const half = Math.floor(script.reply.length / 2);
  for (const text of [script.reply.slice(0, half), script.reply.slice(half)])
    send({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } });
  send({ type: "content_block_stop", index: 0 });
  send({
    type: "message_delta",
    delta: { stop_reason: script.stop ?? "end_turn", stop_sequence: null },
    usage: { output_tokens: usage.output_tokens },
  });
  send({ type: "message_stop" });
  response.end();
}
