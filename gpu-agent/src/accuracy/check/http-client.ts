import { Agent, request, type IncomingMessage } from "node:http";
import { parseJson } from "@vibeserve/shared";
import { CandidateFault, quote } from "./candidate-fault.ts";
import type { Watch } from "./watch.ts";

export interface JsonReply {
  readonly status: number;
  readonly json: unknown;
}
export interface SseReply {
  readonly status: number;
  /** Parsed `data:` of each event but the last. */
  readonly events: readonly unknown[];
  /** Whether `data: [DONE]` ended the stream. */
  readonly done: boolean;
  /** For a status other than 200: the parsed body. */
  readonly json: unknown;
}
export interface PostOptions {
  readonly maxBytes: number;
  /** An answer that is no JSON is null instead of a fault. */
  readonly anyBody?: boolean;
  /** Called with each event as it arrives; the exchange ends there, by hanging up, if it returns "hang-up". */
  readonly onEvent?: (event: unknown) => "hang-up" | undefined;
}

/** HTTP/1.1 on a candidate's unix socket. Every answer is bounded in bytes and time; what breaks a bound throws CandidateFault. */
export class HttpClient implements Disposable {
  readonly #socketPath: string;
  readonly #watch: Watch;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 });

  constructor(socketPath: string, watch: Watch) {
    this.#socketPath = socketPath;
    this.#watch = watch;
  }

  get(path: string, maxBytes = 1 << 20): Promise<JsonReply> {
    return this.#exchange("GET", path, null, async (response) => ({
      status: response.statusCode ?? 0,
      json: await this.#json(response, maxBytes),
    }));
  }

  post(path: string, body: unknown, { maxBytes, anyBody = false }: PostOptions): Promise<JsonReply> {
    return this.#exchange("POST", path, body, async (response) => ({
      status: response.statusCode ?? 0,
      json: await this.#json(response, maxBytes, anyBody),
    }));
  }

  /** A streamed answer. Whatever comes after [DONE] on the same response is a fault. */
  stream(path: string, body: unknown, options: PostOptions): Promise<SseReply> {
    return this.#exchange("POST", path, body, async (response) => {
      const status = response.statusCode ?? 0;
      if (status !== 200) return { status, events: [], done: false, json: await this.#json(response, options.maxBytes) };
      const events: unknown[] = [];
      let done = false;
      let rest = "";
      for await (const text of this.#text(response, options.maxBytes)) {
        const lines = (rest + text).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) {
          if (!line.startsWith("data:")) continue;
          const data = line.slice(5).trim();
          if (done) throw new CandidateFault(`an event came after [DONE]: ${quote(data)}`);
          if (data === "[DONE]") {
            done = true;
            continue;
          }
          const event = parse(data);
          events.push(event);
          if (options.onEvent?.(event) === "hang-up") return { status, events, done, json: null };
        }
      }
      return { status, events, done, json: null };
    });
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  async #exchange<T>(method: string, path: string, body: unknown, read: (response: IncomingMessage) => Promise<T>): Promise<T> {
    const { signal } = this.#watch;
    signal.throwIfAborted();
    const payload = body === null ? null : Buffer.from(JSON.stringify(body));
    return this.#watch.owing(async () => {
      const out = request({
        socketPath: this.#socketPath,
        agent: this.#agent,
        method,
        path,
        signal,
        headers: payload ? { "content-type": "application/json", "content-length": payload.length } : {},
      });
      let response: IncomingMessage | undefined;
      try {
        response = await new Promise<IncomingMessage>((resolve, reject) => {
          out.once("response", resolve);
          // Stays: an error after the response is also told by the response.
          out.on("error", reject);
          out.end(payload ?? undefined);
        });
        return await read(response);
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof CandidateFault) throw error;
        throw new CandidateFault(`${method} ${path}: ${error instanceof Error ? error.message : String(error)}`);
      } finally {
        // A response that was not read to its end can't be reused, and hangs up on the candidate.
        if (!response?.complete) out.destroy();
      }
    });
  }

  async #json(response: IncomingMessage, maxBytes: number, anyBody = false): Promise<unknown> {
    let text = "";
    for await (const part of this.#text(response, maxBytes)) text += part;
    return parse(text, anyBody);
  }

  async *#text(response: IncomingMessage, maxBytes: number): AsyncGenerator<string> {
    const decoder = new TextDecoder("utf-8");
    let bytes = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      this.#watch.touch();
      bytes += chunk.length;
      if (bytes > maxBytes) throw new CandidateFault(`the answer is over ${maxBytes} bytes`);
      yield decoder.decode(chunk, { stream: true });
    }
    yield decoder.decode();
  }
}

function parse(text: string, anyBody = false): unknown {
  const value = parseJson(text);
  if (value === undefined && !anyBody) throw new CandidateFault(`not JSON: ${quote(text)}`);
  return value ?? null;
}
