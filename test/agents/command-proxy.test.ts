import { once } from "node:events";
import { createServer, request, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Meter } from "../../coordinator/src/agents/command/meter.ts";
import { startProxy, type Proxy, type ProxyOptions } from "../../coordinator/src/agents/command/proxy.ts";
import { routeOf } from "../../coordinator/src/agents/command/route.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { CANARY, dollars, free } from "./command-kit.ts";

interface Seen {
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  body: string;
}

/** A provider at which anything can be asked, and a proxy before it. */
async function world(answer: (seen: Seen, response: ServerResponse) => void, more: Partial<ProxyOptions> = {}, path = "") {
  const dir = tempDir("proxy");
  const seen: Seen[] = [];
  const provider = createServer((incoming, response) => {
    let body = "";
    incoming.on("data", (chunk: Buffer) => (body += chunk.toString()));
    incoming.on("end", () => {
      seen.push({ method: incoming.method ?? "", url: incoming.url ?? "", headers: incoming.headers, body });
      answer(seen.at(-1)!, response);
    });
  }).listen(0, "127.0.0.1");
  await once(provider, "listening");
  const socketPath = join(dir.path, "proxy.sock");
  const proxy: Proxy = await startProxy({
    socketPath,
    baseUrl: `http://127.0.0.1:${(provider.address() as AddressInfo).port}${path}`,
    api: { auth: "x-api-key", paid: ["POST /v1/messages"], free: ["GET /v1/models"] },
    credential: CANARY,
    hosts: ["here:1"],
    purse: free,
    ...more,
  });
  return {
    ...{ seen, proxy, socketPath },
    [Symbol.asyncDispose]: async () => {
      await proxy[Symbol.asyncDispose]();
      provider.closeAllConnections();
      provider.close();
      dir[Symbol.dispose]();
    },
  };
}

async function ask(socketPath: string, method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  const call = request({ socketPath, method, path, headers: { host: "here:1", ...headers }, agent: false });
  // A body that is turned away unread may break the connection under the writer.
  call.on("error", () => undefined);
  call.end(body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body));
  const [response] = (await once(call, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response as AsyncIterable<Buffer>) text += chunk.toString();
  return { status: response.statusCode, text };
}

const BODY = { model: "fake-1", max_tokens: 100 };
const json = (response: ServerResponse, value: unknown, status = 200) => {
  response.writeHead(status, { "content-type": "application/json", "set-cookie": "a=b" });
  response.end(JSON.stringify(value));
};

describe("the proxy", () => {
  it("knows no model by a name that every object has: its money would be no number", async () => {
    const own = dollars(1);
    await using w = await world((_seen, response) => json(response, {}, 404), { purse: own });
    for (const model of ["constructor", "toString", "__proto__"])
      expect((await ask(w.socketPath, "POST", "/v1/messages", { ...BODY, model })).status).toBe(402);
    expect(w.seen).toEqual([]);
    expect(own.spentUsd).toBe(0);
    // $1 does not pay for it, however small the bound is that stands beside the real one.
    for (const bounds of [
      { max_tokens: 1, max_output_tokens: 200_000 },
      { max_tokens: 200_000 },
      { max_tokens: 20_000, n: 10 },
      { max_tokens: -1 },
    ])
      expect((await ask(w.socketPath, "POST", "/v1/messages", { ...BODY, ...bounds })).status).toBe(402);
  });

  it("passes nothing on that the provider would carry out on its side, where there is a network", async () => {
    await using w = await world((_seen, response) => json(response, { usage: { input_tokens: 1, output_tokens: 1 } }));
    for (const more of [
      { tools: [{ type: "web_fetch_20250910", name: "web_fetch" }] },
      { tools: [{ type: "web_search", search_context_size: "low" }] },
      { tools: [{ type: "mcp", server_url: "https://example.com" }] },
      { tools: [{ functionDeclarations: [] }, { googleSearch: {} }] },
      { tools: [{ urlContext: {} }] },
      { mcp_servers: [{ type: "url", url: "https://example.com", name: "x" }] },
      { web_search_options: {} },
    ])
      expect((await ask(w.socketPath, "POST", "/v1/messages", { ...BODY, ...more })).text).toMatch(
        /nothing is carried out on the provider's side/,
      );
    expect(w.seen).toEqual([]);
    const own = [
      { name: "web_search_of_ours", input_schema: {} },
      { type: "bash_20250124", name: "bash" },
      { type: "function", name: "f" },
    ];
    expect((await ask(w.socketPath, "POST", "/v1/messages", { ...BODY, tools: own, mcp_servers: [] })).status).toBe(200);
  });

  it("puts its credential in the place of whatever the client sends, in headers and address", async () => {
    await using w = await world((_, response) => json(response, { usage: { input_tokens: 3, output_tokens: 4 } }));
    const headers = {
      "x-api-key": "mine",
      authorization: "Bearer mine",
      cookie: "c=mine",
      "x-goog-api-key": "mine",
      "anthropic-version": "2023-06-01",
    };
    expect((await ask(w.socketPath, "POST", "/v1/messages?beta=true&key=mine", BODY, headers)).status).toBe(200);
    const [{ url, headers: got, body } = { url: "", headers: {}, body: "" }] = w.seen;
    expect(url).toBe("/v1/messages?beta=true");
    expect(JSON.parse(body)).toEqual(BODY);
    expect(got).toMatchObject({ "x-api-key": CANARY, "anthropic-version": "2023-06-01" });
    expect(JSON.stringify(got)).not.toContain("mine");
    expect(w.proxy.totals).toMatchObject({ requests: 1, refused: 0, usage: { input: 3, output: 4, cacheRead: 0, cacheWrite: 0 } });
  });

  it("tells each provider in its own way, under the base URL's path", async () => {
    for (const [auth, name, value] of [
      ["bearer", "authorization", `Bearer ${CANARY}`],
      ["x-goog-api-key", "x-goog-api-key", CANARY],
    ] as const) {
      await using w = await world((_, response) => json(response, {}), { api: { auth, paid: ["POST /responses"], free: [] } }, "/v1");
      expect((await ask(w.socketPath, "POST", "/v1/responses", BODY)).status).toBe(200);
      expect((await ask(w.socketPath, "POST", "/responses", BODY)).status).toBe(403);
      expect(w.seen.map((s) => s.headers[name])).toEqual([value]);
    }
  });

  it("refuses other hosts, paths, methods and tunnels, and asks nobody", async () => {
    await using w = await world((_, response) => json(response, {}));
    const tries: [string, string, Record<string, string>?][] = [
      ["POST", "/v1/messages", { host: "evil.example" }],
      ["POST", "http://evil.example/v1/messages"],
      ["POST", "//evil.example/v1/messages"],
      ["POST", "/v1/messages/../files"],
      ["POST", "/v1/./messages"],
      ["POST", "/v1/%6dessages"],
      ["POST", "/v1/messages/batches"],
      ["POST", "/v1/messages#/v1/messages"],
      ["GET", "/v1/messages"],
      ["DELETE", "/v1/messages"],
      ["POST", "/v1/models"],
      ["POST", "/"],
    ];
    for (const [method, path, headers] of tries)
      expect({
        method,
        path,
        status: (await ask(w.socketPath, method, path, method === "POST" ? BODY : undefined, headers)).status,
      }).toEqual({
        method,
        path,
        status: 403,
      });
    const tunnel = connect(w.socketPath);
    tunnel.write("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n");
    const [reply] = (await once(tunnel, "data")) as [Buffer];
    expect(reply.toString()).toMatch(/^HTTP\/1.1 403 /);
    tunnel.destroy();
    expect(w.seen).toEqual([]);
    expect(w.proxy.totals).toMatchObject({ requests: tries.length + 1, refused: tries.length + 1 });
  });

  it("streams: what has come is passed on while the answer still runs", async () => {
    const running = Promise.withResolvers<ServerResponse>();
    await using w = await world((_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write('data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n');
      running.resolve(response);
    });
    const call = request({ socketPath: w.socketPath, method: "POST", path: "/v1/messages", headers: { host: "here:1" } });
    call.end(JSON.stringify(BODY));
    const [response] = (await once(call, "response")) as [NodeJS.ReadableStream];
    const [first] = (await once(response, "data")) as [Buffer];
    expect(first.toString()).toContain("message_start");
    const provider = await running.promise;
    provider.end('data: {"type":"message_delta","usage":{"output_tokens":40}}\n\n');
    response.resume();
    await once(response, "end");
    expect(w.proxy.totals.usage).toEqual({ input: 9, output: 40, cacheRead: 0, cacheWrite: 0 });
  });

  it("asks the purse before the provider, with the worst, and settles what was billed", async () => {
    const money = dollars(0.005);
    await using w = await world((_, response) => json(response, { usage: { input_tokens: 10, output_tokens: 5 } }), { purse: money });
    expect((await ask(w.socketPath, "POST", "/v1/messages", BODY)).status).toBe(200);
    expect(money.spentUsd).toBeCloseTo((10 * 1 + 5 * 10) / 1e6, 12);
    // 128,000 tokens where it names no bound.
    for (const [body, reason] of [
      [{ model: "fake-1" }, /may cost \$1\.28/],
      [{ model: "fake-1", max_tokens: 500 }, /may cost \$0\.0051, of \$0\.005 are \$0\.0049 left/],
      [{ model: "other" }, /no price is known for model other/],
    ] as const) {
      const { status, text } = await ask(w.socketPath, "POST", "/v1/messages", body);
      expect(status).toBe(402);
      expect(text).toMatch(reason);
    }
    expect((await ask(w.socketPath, "POST", "/v1/messages", "not json")).status).toBe(400);
    expect((await ask(w.socketPath, "GET", "/v1/models")).status).toBe(200);
    expect(w.seen.map((s) => s.url)).toEqual(["/v1/messages", "/v1/models"]);
    expect(w.proxy.totals.unpaid).toMatch(/no price is known/);
  });

  it("sets money aside while a request is under way: two at once can't spend it twice", async () => {
    const first = Promise.withResolvers<ServerResponse>();
    const money = dollars(0.0015);
    await using w = await world((_, response) => first.resolve(response), { purse: money });
    const one = ask(w.socketPath, "POST", "/v1/messages", BODY);
    const open = await first.promise;
    expect((await ask(w.socketPath, "POST", "/v1/messages", BODY)).status).toBe(402);
    json(open, { usage: { input_tokens: 1, output_tokens: 1 } });
    await one;
    expect(money.spentUsd).toBeCloseTo(11 / 1e6, 12);
  });

  it("takes an answer that breaks off, or says nothing of tokens, for the worst; an error for nothing", async () => {
    const money = dollars(1);
    const worst = (Buffer.byteLength(JSON.stringify(BODY)) * 2 + 100 * 10) / 1e6;
    const answers: ((response: ServerResponse) => void)[] = [
      (response) => json(response, { error: { message: `bad key ${CANARY}` } }, 401),
      (response) => json(response, { content: [] }),
      (response) => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write('data: {"message":{"usage":{"input_tokens":1,"output_tokens":1}}}\n\n', () => response.destroy());
      },
    ];
    await using w = await world((_, response) => answers.shift()?.(response), { purse: money });
    const refused = await ask(w.socketPath, "POST", "/v1/messages", BODY);
    expect(refused).toEqual({ status: 401, text: '{"error":{"message":"bad key [credential]"}}' });
    expect(money.spentUsd).toBe(0);
    await ask(w.socketPath, "POST", "/v1/messages", BODY);
    expect(money.spentUsd).toBeCloseTo(worst, 12);
    await expect(ask(w.socketPath, "POST", "/v1/messages", BODY)).rejects.toThrow();
    expect(money.spentUsd).toBeCloseTo(2 * worst, 12);
    expect(w.proxy.totals).toMatchObject({ unmetered: 2, lastError: 401 });
  });

  it("says so where the provider can't be reached, and charges nothing", async () => {
    const money = dollars(1);
    await using w = await world((_, response) => json(response, {}), { purse: money, baseUrl: "http://127.0.0.1:1" });
    expect((await ask(w.socketPath, "POST", "/v1/messages", BODY)).status).toBe(502);
    expect([money.spentUsd, w.proxy.totals.lastError]).toEqual([0, 502]);
  });

  it("turns away a request that is too large", async () => {
    await using w = await world((_, response) => json(response, {}));
    expect((await ask(w.socketPath, "POST", "/v1/messages", "x".repeat(32 * 2 ** 20 + 1))).status).toBe(413);
    expect(w.seen).toEqual([]);
  });

  it("never carries a credential in the clear", async () => {
    for (const baseUrl of ["http://provider.example", "https://user:pass@provider.example", "https://provider.example/?key=x"])
      await expect(world(() => undefined, { baseUrl })).rejects.toThrow(TypeError);
  });
});

describe("tokens are read from", () => {
  const metered = (type: string, ...chunks: string[]) => {
    const meter = new Meter(type);
    for (const chunk of chunks) meter.write(Buffer.from(chunk));
    return meter.end();
  };
  const sse = (...events: unknown[]) => events.map((e) => `data: ${JSON.stringify(e)}\n\n`).join("");

  it.each([
    [
      "an Anthropic message",
      "application/json",
      JSON.stringify({ usage: { input_tokens: 1, cache_read_input_tokens: 2, cache_creation_input_tokens: 3, output_tokens: 4 } }),
    ],
    [
      "an Anthropic stream",
      "text/event-stream; charset=utf-8",
      sse(
        { message: { usage: { input_tokens: 1, cache_read_input_tokens: 2, cache_creation_input_tokens: 3, output_tokens: 1 } } },
        { delta: { text: 'a text about "usage"' } },
        { usage: { output_tokens: 4 } },
      ),
    ],
  ])("%s", (_, type, text) => expect(metered(type, text)).toEqual({ input: 1, output: 4, cacheRead: 2, cacheWrite: 3 }));

  it.each([
    [
      "OpenAI Responses",
      "text/event-stream",
      sse(
        { response: { id: "r" } },
        { response: { usage: { input_tokens: 3, input_tokens_details: { cached_tokens: 2 }, output_tokens: 4 } } },
      ),
    ],
    [
      "OpenAI chat",
      "application/json",
      JSON.stringify({ usage: { prompt_tokens: 3, prompt_tokens_details: { cached_tokens: 2 }, completion_tokens: 4 } }),
    ],
    [
      "OpenAI chat streams",
      "text/event-stream",
      `${sse({ choices: [] }, { usage: { prompt_tokens: 3, prompt_tokens_details: { cached_tokens: 2 }, completion_tokens: 4 } })}data: [DONE]\n\n`,
    ],
    [
      "Gemini",
      "application/json",
      JSON.stringify([
        { usageMetadata: { promptTokenCount: 3, cachedContentTokenCount: 2, candidatesTokenCount: 1, thoughtsTokenCount: 3 } },
      ]),
    ],
  ])("%s, what was cached counted once", (_, type, text) =>
    expect(metered(type, text)).toEqual({ input: 1, output: 4, cacheRead: 2, cacheWrite: 0 }),
  );

  it("a stream that comes in any pieces; nothing is made up where there are none", () => {
    const text = sse({ message: { usage: { input_tokens: 7, output_tokens: 1 } } }, { usage: { output_tokens: 5 } });
    expect(metered("text/event-stream", ...text.match(/./gs)!)).toEqual({ input: 7, output: 5, cacheRead: 0, cacheWrite: 0 });
    expect(metered("application/json", "{}")).toBeNull();
    expect(metered("text/event-stream", 'data: {"usage')).toBeNull();
  });
});

it("a model's name is read from the address where it stands there", () => {
  const api = { paid: ["POST /v1beta/models/{model}:generateContent"], free: [] };
  const route = (url: string) => routeOf({ method: "POST", url, host: "h" }, new URL("https://g.example"), ["h"], api);
  expect(route("/v1beta/models/gemini-3:generateContent?alt=sse&key=x")).toEqual({
    ...{ kind: "routed", paid: true, model: "gemini-3" },
    path: "/v1beta/models/gemini-3:generateContent?alt=sse",
  });
  expect(route("/v1beta/models/a/b:generateContent").kind).toBe("refused");
  expect(route("/v1beta/models/:generateContent").kind).toBe("refused");
});
