import { connect, type Socket } from "node:net";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { at, type ServedStack } from "./served.ts";
import { serveTiny } from "./tiny-served.ts";
import { builtStack } from "./tree.ts";

let stack: ServedStack;
beforeAll(async () => {
  stack = await serveTiny(await builtStack());
}, 180_000);
afterAll(() => stack[Symbol.asyncDispose]());

const completions = "/v1/completions";
const greedy = { temperature: 0, ignore_eos: true };

async function raw(bytes: string): Promise<string> {
  const socket = connect(stack.socket);
  socket.end(bytes);
  return await text(socket);
}

async function dial(): Promise<Socket> {
  const socket = connect(stack.socket);
  await once(socket, "connect");
  return socket;
}

/** Reads until `count` answers to small requests have arrived. */
async function answers(socket: Socket, count: number): Promise<string[]> {
  let received = "";
  for (;;) {
    const found = [...received.matchAll(/HTTP\/1\.1 (\d+)/g)].map((m) => m[1]!);
    if (found.length === count && received.endsWith("}")) return found;
    const [data] = (await once(socket, "data")) as [Buffer];
    received += data.toString();
  }
}

function post(body: string, headers = ""): string {
  return `POST ${completions} HTTP/1.1\r\nHost: x\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}\r\n${body}`;
}

describe("HTTP", () => {
  const body = JSON.stringify({ prompt: "x", max_tokens: 1 });

  test("requests sent one after another without waiting are answered in order on one connection", async () => {
    const socket = await dial();
    socket.write("GET /health HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n" + post(body));
    expect(await answers(socket, 3)).toEqual(["200", "404", "200"]);
    socket.destroy();
  });

  test("a request that arrives byte by byte is one request", async () => {
    const socket = await dial();
    socket.setNoDelay(true);
    for (const byte of post(body)) socket.write(byte);
    expect(await answers(socket, 1)).toEqual(["200"]);
    socket.destroy();
  });

  test("Connection: close closes after the answer, and so does HTTP/1.0", async () => {
    for (const end of ["1.1\r\nConnection: close", "1.0"]) {
      const socket = await dial();
      socket.write(`GET /health HTTP/${end}\r\n\r\n`);
      expect(await text(socket)).toMatch(/^HTTP\/1\.1 200.*\{"status":"ok"\}$/s);
    }
  });

  test("Expect: 100-continue is answered before the body", async () => {
    const socket = await dial();
    const [head, rest] = post(body, "Expect: 100-continue\r\n").split(/(?<=\r\n\r\n)/);
    socket.write(head!);
    expect(String((await once(socket, "data"))[0])).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    socket.write(rest!);
    expect(await answers(socket, 1)).toEqual(["200"]);
    socket.destroy();
  });

  test.for<[string, string, string]>([
    ["not HTTP", "hello\r\n\r\n", "400"],
    ["no path", "GET HTTP/1.1\r\n\r\n", "400"],
    ["a header without a colon", "GET /health HTTP/1.1\r\nHost\r\n\r\n", "400"],
    ["a length that is no number", "POST /v1/score HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"],
    ["a chunked body", "POST /v1/score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "411"],
    ["a body of a terabyte", "POST /v1/score HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n", "413"],
    ["an endless head", `GET /health HTTP/1.1\r\nX: ${"y".repeat(70_000)}`, "431"],
  ])("%s is refused and the connection closed", async ([, bytes, status]) => {
    expect(await raw(bytes)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} .*"message"`, "s"));
  });
});

describe("many clients", () => {
  test("64 open streams all get the answer that one alone gets", async () => {
    const body = { prompt: "together", max_tokens: 20, ...greedy };
    const alone = at(await stack.post(completions, body), "choices", 0, "token_ids");
    const streams = Array.from({ length: 64 }, () => stack.chunks(completions, body));
    for (const chunks of await Promise.all(streams)) expect(chunks.flatMap((c) => at(c, "choices", 0, "token_ids"))).toEqual(alone);
  });

  test("the 257th connection is told that there are too many, and closed ones make room", async () => {
    const sockets = await Promise.all(Array.from({ length: 257 }, dial));
    const statuses = await Promise.all(
      sockets.map(async (s) => {
        s.write("GET /health HTTP/1.1\r\n\r\n");
        return (await answers(s, 1))[0];
      }),
    );
    expect(statuses.filter((s) => s === "503").length).toBeGreaterThan(0);
    expect(statuses.filter((s) => s === "200").length).toBeGreaterThan(150); // connections that Node keeps alive count too
    for (const s of sockets) s.destroy();
    await expect.poll(async () => (await stack.call("GET", "/health").catch(() => undefined))?.status).toBe(200);
  });
});

describe("clients that go away", () => {
  const long = { prompt: "long", max_tokens: 4000, ...greedy };

  async function timeOf(work: () => Promise<unknown>): Promise<number> {
    const start = performance.now();
    await work();
    return performance.now() - start;
  }

  test("a closed connection ends its generation: the next request does not wait for 4,000 tokens", async () => {
    const whole = await timeOf(() => stack.post(completions, long));
    for (const stream of [true, false]) {
      const control = new AbortController();
      if (stream) {
        for await (const _ of stack.stream(completions, long, control.signal)) break; // the first token is there: it runs
        control.abort();
      } else {
        const answer = stack.call("POST", completions, long, control.signal).catch(() => undefined);
        await stack.call("GET", "/health"); // a round trip later it has been read and queued
        control.abort();
        await answer;
      }
      expect(await timeOf(() => stack.post(completions, { ...long, max_tokens: 1 }))).toBeLessThan(whole / 4);
    }
  });

  test("a request whose client left while it waited is never run", async () => {
    const whole = await timeOf(() => stack.post(completions, long));
    const controls = Array.from({ length: 20 }, () => new AbortController());
    const running = stack.stream(completions, long, controls[0]!.signal);
    await running.next();
    const waiting = controls.slice(1).map((c) => stack.call("POST", completions, long, c.signal).catch(() => undefined));
    await stack.call("GET", "/health");
    for (const c of controls) c.abort();
    await Promise.all(waiting);
    expect(await timeOf(() => stack.post(completions, { ...long, max_tokens: 1 }))).toBeLessThan(whole / 2);
  });

  test("a client that does not read holds up nobody, and gets all in the end", async () => {
    const response = await stack.open("POST", completions, { ...long, stream: true });
    response.pause();
    const other = await stack.post(completions, { ...long, max_tokens: 3 }); // one at a time: the slow client's is done before this one
    expect(at(other, "usage", "completion_tokens")).toBe(3);
    const received = await text(response);
    expect(received.match(/"token_ids":\[\d+\]/g)).toHaveLength(4000);
    expect(received.endsWith("data: [DONE]\n\n")).toBe(true);
  });

  test("a scoring request whose client left is dropped as well", async () => {
    const ids = Array.from({ length: 4000 }, (_, i) => i % 262);
    const body = { sequences: Array.from({ length: 8 }, () => ids), query: Array.from({ length: 8 }, () => ids.map(() => [5])) };
    const control = new AbortController();
    const scoring = stack.call("POST", "/v1/score", body, control.signal).catch(() => undefined);
    await stack.call("GET", "/health");
    control.abort();
    await scoring;
    const one = await timeOf(() => stack.post("/v1/score", { sequences: [ids], query: [ids.map(() => [])] }));
    expect(await timeOf(() => stack.post(completions, { ...long, max_tokens: 1 }))).toBeLessThan(one);
  });
});

test("SIGTERM ends the stack with 0 and removes its socket", async () => {
  const other = await serveTiny(await builtStack());
  other.terminate();
  expect(await other.exited).toBe(0);
  expect(existsSync(other.socket)).toBe(false);
  await other[Symbol.asyncDispose]();
});
