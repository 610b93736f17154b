import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A request with its body as JSON; null where it has none. */
export interface Posted {
  method: string;
  /** With what follows a question mark. */
  path: string;
  body: unknown;
  headers: IncomingMessage["headers"];
  /** When all of it was here, in ms by this process's monotonic clock. */
  at: number;
}

/** Real HTTP on a free port of loopback: each request is read whole and handed over with its response. */
export async function scriptedHttp(
  answer: (posted: Posted, response: ServerResponse) => void,
): Promise<{ url: string; close: () => Promise<void> }> {
  const http = createServer((request, response) => {
    void readBody(request).then((body) => {
      const at = performance.now();
      const { method = "", url: path = "", headers } = request;
      answer({ method, path, body: body === "" ? null : (JSON.parse(body) as unknown), headers, at }, response);
    });
  });
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  return {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    async close() {
      http.closeAllConnections();
      http.close();
      await once(http, "close");
    },
  };
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

export function sendJson(response: ServerResponse, status: number, body: unknown, retryAfter?: string): void {
  response.writeHead(status, { "content-type": "application/json", ...(retryAfter === undefined ? {} : { "retry-after": retryAfter }) });
  response.end(JSON.stringify(body));
}

/** In pieces of about that many characters, as streams come. */
export const piecesOf = (text: string, size: number): string[] =>
  Array.from({ length: Math.ceil(text.length / size) }, (_, i) => text.slice(i * size, (i + 1) * size));

/** Breaks the connection once what was written is on its way. */
export const breakOff = (response: ServerResponse): void => void setTimeout(() => response.destroy(), 20);

/** More than the network between two sockets holds, so that it is all written only when the other side reads the stream. */
const MUCH = `: ${"-".repeat(65_000)}\n`.repeat(256);

/** Fulfilled when the client is known to be in the middle of this stream: comments of SSE, 16 MB of them. */
export const untilRead = (response: ServerResponse): Promise<unknown> => new Promise((resolve) => response.write(MUCH, resolve));
