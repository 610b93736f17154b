import { once } from "node:events";
import * as http from "node:http";
import * as https from "node:https";
import type { TurnUsage } from "@vibeserve/shared";
import { Meter, NOTHING, plus } from "./meter.ts";
import type { Recipe } from "./recipe.ts";
import { routeOf } from "./route.ts";
import type { Ask, Purse } from "./spending.ts";

export interface ProxyOptions {
  socketPath: string;
  /** The only place that is reached; https, or http on loopback. Its path is a prefix of every request's. */
  baseUrl: string;
  api: Pick<Recipe["api"], "auth" | "paid" | "free">;
  /** null: the provider wants none (a local server). */
  credential: string | null;
  /** What the client calls this proxy in its Host header. */
  hosts: readonly string[];
  purse: Purse;
}

export interface Totals {
  requests: number;
  /** Of them, turned away by the proxy, and why last. */
  refused: number;
  refusal: string | null;
  /** The last reason of the purse; null: it never refused. */
  unpaid: string | null;
  /** HTTP status of the provider's last answer that was an error. */
  lastError: number | null;
  usage: TurnUsage;
  /** Paid requests whose tokens are not in `usage`: they broke off, or the answer did not say. */
  unmetered: number;
}

export interface Proxy extends AsyncDisposable {
  readonly totals: Readonly<Totals>;
}

/** Anthropic's own bound on a request. */
const MAX_REQUEST_BYTES = 32 * 2 ** 20;
const MAX_ERROR_BYTES = 65_536;
/** A CLI with a few subagents asks so many at once. */
const MAX_CONNECTIONS = 64;
/** A provider that says nothing for so long is dead. */
const SILENT_MS = 600_000;
const AUTH_HEADERS = /^(authorization|x-api-key|x-goog-api-key|api-key|proxy-.*|cookie)$/;
/** Of this connection, or of no meaning to the provider. Nothing is asked for compressed: it is metered as it passes. */
const HOP_HEADERS =
  /^(host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-length|accept-encoding|forwarded|x-forwarded-.*)$/;
const ANSWER_HEADERS = /^(content-type|retry-after|retry-after-ms|x-should-retry|(x-)?request-id|.*ratelimit.*)$/;

/**
 * HTTP on a unix socket for one run of one CLI, and behind it one provider.
 *   X1. Nothing but the recipe's requests to the base URL passes; all else gets 403.
 *   X2. The credential is put in here: what the client sends as one is dropped, and no answer of the provider's that is an error repeats it.
 *   X3. A paid request is sent only if the purse admits it (else 402), and settled once whatever becomes of it.
 *   X4. Bodies are bounded; a request is read whole, since the purse must know its size and model, an answer streams.
 * Throws TypeError for a base URL that would carry the credential in the clear.
 */
export async function startProxy(options: ProxyOptions): Promise<Proxy> {
  const base = new URL(options.baseUrl);
  const local = ["127.0.0.1", "localhost", "[::1]"].includes(base.hostname);
  if (base.protocol !== "https:" && !(base.protocol === "http:" && local))
    throw new TypeError(`${options.baseUrl}: must be https, or http on loopback`);
  if (base.username || base.password || base.search) throw new TypeError("a provider's base URL holds no credential and no query");
  const client = base.protocol === "https:" ? https : http;
  const agent = new client.Agent({ keepAlive: true, maxSockets: MAX_CONNECTIONS });
  const totals: Totals = { requests: 0, refused: 0, refusal: null, unpaid: null, lastError: null, usage: NOTHING, unmetered: 0 };

  const serve = async (request: http.IncomingMessage, response: http.ServerResponse): Promise<void> => {
    totals.requests++;
    const refuse = (status: number, reason: string): void => {
      totals.refused++;
      totals.refusal = reason;
      if (status === 402) totals.unpaid = reason;
      request.resume();
      response.writeHead(status, { "content-type": "application/json", connection: "close" });
      // Both dialects find their message here.
      response.end(JSON.stringify({ type: "error", error: { type: "vibeserve", code: status, message: `VibeServe: ${reason}` } }));
    };
    const { method = "", url = "", headers } = request;
    const to = routeOf({ method, url, host: headers.host ?? "" }, base, options.hosts, options.api);
    if (to.kind === "refused") return refuse(403, to.reason);
    const body = await readBody(request);
    if (body === null) return refuse(413, `a request of more than ${MAX_REQUEST_BYTES} bytes`);
    const ask = to.paid ? askOf(body, to.model) : null;
    if (to.paid && ask === null) return refuse(400, "the body is not a JSON object, so what it may cost is not known");
    const unpaid = ask === null ? null : options.purse.admit(ask);
    if (unpaid !== null) return refuse(402, unpaid);

    let settled = ask === null;
    const settle = (usage: TurnUsage | null): void => {
      if (settled || ask === null) return;
      settled = true;
      if (usage === null) totals.unmetered++;
      else totals.usage = plus(totals.usage, usage);
      options.purse.settled(ask, usage);
    };
    const upstream = client.request(base.origin + to.path, { method, agent, headers: sent(headers, options), timeout: SILENT_MS });
    upstream.once("timeout", () => upstream.destroy(new Error(`the provider said nothing for ${SILENT_MS / 1000} s`)));
    response.once("close", () => upstream.destroy());
    upstream.end(body);
    let answer: http.IncomingMessage;
    try {
      [answer] = (await once(upstream, "response")) as [http.IncomingMessage];
    } catch (error) {
      // Without an answer it may still have been taken, once a body was sent.
      settle(upstream.socket?.bytesWritten ? null : NOTHING);
      totals.lastError = 502;
      response.writeHead(502, { "content-type": "application/json" });
      response.end(
        JSON.stringify({ type: "error", error: { type: "vibeserve", message: `no answer from the provider: ${String(error)}` } }),
      );
      return;
    }
    const status = answer.statusCode ?? 502;
    const kept = Object.entries(answer.headers).filter(([name]) => ANSWER_HEADERS.test(name));
    const failed = status < 200 || status > 299;
    const meter = new Meter(answer.headers["content-type"] ?? "");
    const error: Buffer[] = [];
    try {
      if (failed) totals.lastError = status;
      else response.writeHead(status, Object.fromEntries(kept));
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        if (failed) {
          if (error.reduce((n, c) => n + c.length, 0) < MAX_ERROR_BYTES) error.push(chunk);
          continue;
        }
        meter.write(chunk);
        if (!response.write(chunk)) await Promise.race([once(response, "drain"), once(response, "close")]);
      }
      settle(failed ? NOTHING : meter.end());
      if (failed) {
        const text = Buffer.concat(error).subarray(0, MAX_ERROR_BYTES).toString("utf8");
        response.writeHead(status, Object.fromEntries(kept));
        response.end(options.credential === null ? text : text.replaceAll(options.credential, "[credential]"));
      } else response.end();
    } catch {
      settle(null);
      response.destroy();
    }
  };

  const server = http.createServer({ maxHeaderSize: 65_536, noDelay: true }, (request, response) => {
    response.on("error", () => undefined);
    serve(request, response).catch(() => response.destroy());
  });
  server.maxConnections = MAX_CONNECTIONS;
  // CONNECT would open a tunnel; without a listener node closes it, this also says why.
  server.on("connect", (_request, socket) => {
    totals.requests++;
    totals.refused++;
    socket.end("HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
  });
  server.listen(options.socketPath);
  await once(server, "listening");
  return {
    totals,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      agent.destroy();
      await once(server, "close");
    },
  };
}

/** null: larger than allowed. */
async function readBody(request: http.IncomingMessage): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_REQUEST_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function askOf(body: Buffer, model: string | null): Ask | null {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  const o = value as Record<string, unknown>;
  const config = (o["generationConfig"] ?? {}) as Record<string, unknown>;
  const bounds = [o["max_tokens"], o["max_completion_tokens"], o["max_output_tokens"], config["maxOutputTokens"]];
  return {
    model: model ?? (typeof o["model"] === "string" ? o["model"] : null),
    bytes: body.length,
    maxTokens: bounds.find((n) => typeof n === "number") ?? null,
  };
}

function sent(headers: http.IncomingHttpHeaders, { api, credential }: ProxyOptions): http.OutgoingHttpHeaders {
  const kept = Object.entries(headers).filter(([name]) => !AUTH_HEADERS.test(name) && !HOP_HEADERS.test(name));
  const auth = credential === null ? {} : api.auth === "bearer" ? { authorization: `Bearer ${credential}` } : { [api.auth]: credential };
  return { ...Object.fromEntries(kept), "accept-encoding": "identity", ...auth };
}
