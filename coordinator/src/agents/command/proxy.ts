import { once } from "node:events";
import * as http from "node:http";
import * as https from "node:https";
import type { TurnUsage } from "@vibeserve/shared";
import { addUsage, NO_USAGE } from "../provider.ts";
import { MAX_REQUEST_BYTES, askOf, headersFor, readBody } from "./asked.ts";
import { Meter } from "./meter.ts";
import type { Recipe } from "./recipe.ts";
import { routeOf } from "./route.ts";
import type { Purse } from "./spending.ts";

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

const MAX_ERROR_BYTES = 65_536;
/** A CLI with a few subagents asks so many at once. */
const MAX_CONNECTIONS = 64;
/** A provider that says nothing for so long is dead. */
const SILENT_MS = 600_000;
const ANSWER_HEADERS = /^(content-type|content-encoding|retry-after|retry-after-ms|x-should-retry|(x-)?request-id|.*ratelimit.*)$/;

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
  const totals: Totals = { requests: 0, refused: 0, refusal: null, unpaid: null, lastError: null, usage: NO_USAGE, unmetered: 0 };

  const serve = async (request: http.IncomingMessage, response: http.ServerResponse): Promise<void> => {
    totals.requests++;
    const { method = "", url = "", headers } = request;
    const to = routeOf({ method, url, host: headers.host ?? "" }, base, options.hosts, options.api);
    if (to.kind === "refused") throw new Refused(403, to.reason);
    const body = await readBody(request, MAX_REQUEST_BYTES);
    if (body === null) throw new Refused(413, `a request of more than ${MAX_REQUEST_BYTES} bytes`);
    const ask = to.paid ? askOf(body, to.model) : null;
    if (to.paid && ask === null) throw new Refused(400, "the body is not a JSON object, so what it may cost is not known");
    if (ask !== null && ask.remote !== "") throw new Refused(403, `${ask.remote}: nothing is carried out on the provider's side`);
    const unpaid = ask === null ? null : options.purse.admit(ask);
    if (unpaid !== null) throw new Refused(402, unpaid);

    let settled = ask === null;
    const settle = (usage: TurnUsage | null): void => {
      if (settled || ask === null) return;
      settled = true;
      if (usage === null) totals.unmetered++;
      else totals.usage = addUsage(totals.usage, usage);
      options.purse.settled(ask, usage);
    };
    const upstream = client.request(base.origin + to.path, {
      method,
      agent,
      headers: headersFor(headers, options.api.auth, options.credential),
      timeout: SILENT_MS,
    });
    upstream.once("timeout", () => upstream.destroy(new Error(`the provider said nothing for ${SILENT_MS / 1000} s`)));
    response.once("close", () => upstream.destroy());
    const sent = { connected: false };
    upstream.once("socket", (socket) => {
      sent.connected = !socket.connecting;
      socket.once("connect", () => (sent.connected = true));
    });
    upstream.end(body);
    let answer: http.IncomingMessage;
    try {
      [answer] = (await once(upstream, "response")) as [http.IncomingMessage];
    } catch (error) {
      // Once there was a connection it may have been read, and billed.
      settle(sent.connected ? null : NO_USAGE);
      totals.lastError = 502;
      tell(response, 502, `no answer from the provider: ${String(error)}`);
      return;
    }
    const status = answer.statusCode ?? 502;
    const failed = status < 200 || status > 299;
    if (failed) totals.lastError = status;
    const kept = Object.fromEntries(Object.entries(answer.headers).filter(([name]) => ANSWER_HEADERS.test(name)));
    const meter = new Meter(answer.headers["content-type"] ?? "");
    try {
      if (failed) {
        settle(NO_USAGE);
        const words = ((await readBody(answer, MAX_ERROR_BYTES)) ?? "").toString();
        response.writeHead(status, kept);
        response.end(options.credential === null ? words : words.replaceAll(options.credential, "[credential]"));
        return;
      }
      response.writeHead(status, kept);
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        meter.write(chunk);
        if (!response.write(chunk)) await Promise.race([once(response, "drain"), once(response, "close")]);
      }
      settle(meter.end());
      response.end();
    } catch {
      settle(null);
      response.destroy();
    }
  };

  const running = new Set<Promise<void>>();
  const server = http.createServer({ maxHeaderSize: 65_536, noDelay: true }, (request, response) => {
    response.on("error", () => undefined);
    const served = serve(request, response).catch((error: unknown) => {
      if (!(error instanceof Refused)) return void response.destroy();
      totals.refused++;
      totals.refusal = error.message;
      if (error.status === 402) totals.unpaid = error.message;
      request.resume();
      tell(response, error.status, error.message);
    });
    running.add(served);
    void served.finally(() => running.delete(served));
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
      // What was under way is settled by now.
      await Promise.all(running);
    },
  };
}

/** A request that does not pass, with the status and the words that the client gets. */
class Refused extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** An answer of the proxy's own; every dialect's clients find the message here. */
function tell(response: http.ServerResponse, status: number, reason: string): void {
  response.writeHead(status, { "content-type": "application/json", connection: "close" });
  response.end(JSON.stringify({ type: "error", error: { type: "vibeserve", code: status, message: `VibeServe: ${reason}` } }));
}
