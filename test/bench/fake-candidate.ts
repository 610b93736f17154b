/**
 * A process that speaks the candidate's contract on a unix socket with exactly known latencies, honestly or not: `node fake-candidate.ts SOCKET
 * '{"firstMs":50,"tokenMs":10}'`. Token n of a request has the id `first + n`, where `first` is the sum of the prompt's bytes; its text is
 * "<id> ". Prints "listening" once.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

export type Trick =
  | "none"
  | "split" // each token as two events: ids first, then text
  | "pad" // one id too many, counted in usage
  | "false-usage"
  | "short" // stops at half
  | "repeat" // sends one event twice
  | "wrong-text"
  | "blank-first" // an empty event at once
  | "wrong-ids" // well-formed, but not what the model says
  | "no-done"
  | "hang" // the third request is never answered
  | "crash" // exits in the middle of the third request
  | "flood" // endless text in the third request
  | "refuse" // 400 to everything
  | "garbage"; // bytes that are not HTTP

export interface FakeSpec {
  /** From the request's arrival to its first token. */
  firstMs: number;
  /** Between two tokens of a request. */
  tokenMs: number;
  /** At most so many requests are served at once, first come first served. */
  slots?: number;
  /** Blocks the whole process once, for stallMs, stallAtMs after its first request. */
  stallAtMs?: number;
  stallMs?: number;
  /** Busy-waits this long in all for each token, to use CPU time. */
  burnMs?: number;
  trick?: Trick;
}

export const idsOf = (prompt: string, count: number): number[] => {
  const first = Buffer.from(prompt).reduce((sum, byte) => sum + byte, 0) % 40_000;
  return Array.from({ length: count }, (_, n) => first + n);
};
export const textOf = (ids: readonly number[]): string => ids.map((id) => `${id} `).join("");

function burn(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

function serve(socketPath: string, spec: FakeSpec): void {
  const trick = spec.trick ?? "none";
  let active = 0;
  let requests = 0;
  const queue: (() => void)[] = [];
  const enter = async (): Promise<void> => {
    if (active++ < (spec.slots ?? Infinity)) return;
    await new Promise<void>((resolve) => queue.push(resolve));
  };
  const leave = (): void => {
    active--;
    queue.shift()?.();
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.url === "/health") {
      response.end('{"status":"ok"}');
      return;
    }
    const nth = ++requests;
    if (nth === 1 && spec.stallMs !== undefined) {
      const ms = spec.stallMs;
      setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms), spec.stallAtMs ?? 0);
    }
    const arrived = performance.now();
    let text = "";
    for await (const part of request) text += String(part);
    const body = JSON.parse(text) as { messages: { content: string }[]; max_tokens: number };
    const prompt = body.messages.at(-1)?.content ?? "";
    if (trick === "refuse") {
      response
        .writeHead(400, { "content-type": "application/json" })
        .end('{"error":{"message":"no such field","type":"invalid_request_error"}}');
      return;
    }
    if (trick === "garbage") {
      request.socket.end("I am not HTTP\r\n\r\n");
      return;
    }
    if (trick === "hang" && nth === 3) return;
    await enter();
    const start = (spec.slots === undefined ? arrived : performance.now()) + spec.firstMs;
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.socket?.on("error", () => undefined);
    const send = (choice: object, more: object = {}): void => {
      response.write(
        `data: ${JSON.stringify({ id: "x", object: "chat.completion.chunk", model: "fake", choices: [choice], ...more })}\n\n`,
      );
    };
    const token = (ids: readonly number[], content: string): void =>
      send({ index: 0, delta: { content }, token_ids: ids, finish_reason: null });
    if (trick === "blank-first") token([], "");
    const honest = idsOf(prompt, body.max_tokens);
    const ids =
      trick === "wrong-ids" ? honest.map((id) => id + 1) : trick === "short" ? honest.slice(0, Math.ceil(honest.length / 2)) : honest;
    for (const [n, id] of ids.entries()) {
      const due = start + n * spec.tokenMs;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
      if (spec.burnMs !== undefined) burn(spec.burnMs);
      if (trick === "crash" && nth === 3 && n === 2) process.exit(7);
      if (trick === "flood" && nth === 3) {
        flood(response);
        return;
      }
      if (trick === "split") {
        token([id], "");
        token([], textOf([id]));
      } else token([id], trick === "wrong-text" && n === 1 ? "lies " : textOf([id]));
      if (trick === "repeat" && n === 1) token([id], textOf([id]));
    }
    if (trick === "pad") token([1], "1 ");
    const counted = ids.length + (trick === "pad" || trick === "repeat" ? 1 : trick === "false-usage" ? 10 : 0);
    send({ index: 0, delta: {}, token_ids: [], finish_reason: "length" });
    const usage = { prompt_tokens: prompt.length, completion_tokens: counted, total_tokens: prompt.length + counted };
    response.write(`data: ${JSON.stringify({ id: "x", choices: [], usage })}\n\n`);
    response.end(trick === "no-done" ? "" : "data: [DONE]\n\n");
    leave();
  }

  createServer((request, response) => void answer(request, response).catch(() => response.destroy())).listen(socketPath, () =>
    process.stdout.write("listening\n"),
  );
}

function flood(response: ServerResponse): void {
  const line = `data: ${JSON.stringify({ choices: [{ delta: { content: "x".repeat(60_000) }, token_ids: [] }] })}\n\n`;
  const more = (): void => {
    while (response.write(line));
    response.once("drain", more);
  };
  more();
}

if (import.meta.main) {
  const [socketPath, spec] = process.argv.slice(2);
  if (socketPath === undefined || spec === undefined) throw new Error("usage: node fake-candidate.ts SOCKET SPEC");
  serve(socketPath, JSON.parse(spec) as FakeSpec);
}
