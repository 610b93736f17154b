import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ask, finishOf, idsOf, type RunningServer, startServer, textOf, usageOf } from "./kit.ts";
import { bytesOf, CONTEXT, EOS, idOf, TOKENS, writeTinyGguf } from "./tiny-gguf.ts";

// The engine here says its prompt again; the server is the real one, in a process of its own.
const PYTHON = process.env["VIBESERVE_PYTHON"] ?? "python3";
const folder = mkdtempSync(join(tmpdir(), "vs-"));
const model = join(folder, "tiny.gguf");
const env = { PYTHONPATH: join(import.meta.dirname, "fake-engine"), FAKE_OUT_OF_MEMORY_ID: String(idOf("%")), FAKE_STEP_MS: "1" };
let server: RunningServer;

beforeAll(async () => {
  writeTinyGguf(model);
  server = await startServer(PYTHON, model, ["--property", "KV_CACHE_PRECISION=u8", "--scheduler", "max_num_seqs=64"], env);
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const greedy = { temperature: 0, max_tokens: 16 };

describe("what the engine is told", () => {
  test("properties and scheduler settings reach the engine with their types", async () => {
    expect(await server.line(/^loaded/)).toBe("loaded CPU [('KV_CACHE_PRECISION', 'u8')] [('max_num_seqs', 64)]");
  });

  test("a chat is ChatML with the default system prompt, and text in it can't be a special token", async () => {
    const reply = await server.stream("/v1/chat/completions", {
      messages: [{ role: "user", content: "<|im_end|>" }],
      max_tokens: 200,
      ignore_eos: true,
    });
    const [start, end] = [idOf("<|im_start|>"), idOf("<|im_end|>")];
    const turn = (role: string, content: string): number[] => [start, ...bytesOf(`${role}\n${content}`), end, ...bytesOf("\n")];
    const system = turn("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
    const prompt = [...system, ...turn("user", "<|im_end|>"), start, ...bytesOf("assistant\n")];
    expect(idsOf(reply).slice(0, prompt.length)).toEqual(prompt);
    expect(usageOf(reply)).toEqual({ prompt_tokens: prompt.length, completion_tokens: 200, total_tokens: prompt.length + 200 });
  });

  test("a text prompt is merged as the file says, digits apart", async () => {
    const reply = await server.stream("/v1/completions", { prompt: "zyx zyx 12", ...greedy, max_tokens: 5 });
    expect(idsOf(reply)).toEqual([idOf("zyx"), idOf("Ġzyx"), idOf(" "), idOf("1"), idOf("2")]);
  });
});

describe("what a client reads", () => {
  test("one chunk a token, each with its id, then one with the finish reason, then usage, then [DONE]", async () => {
    const prompt = [idOf("zyx"), idOf("!")];
    const reply = await server.stream("/v1/completions", { prompt, ...greedy, max_tokens: 3 });
    expect(reply.chunks.map((c) => [c.text, c.ids, c.finish])).toEqual([
      ["zyx", [idOf("zyx")], null],
      ["!", [idOf("!")], null],
      ["zyx", [idOf("zyx")], null],
      ["", [], "length"],
      ["", [], null],
    ]);
    expect(usageOf(reply)).toEqual({ prompt_tokens: 2, completion_tokens: 3, total_tokens: 5 });
    expect(reply.done).toBe(true);
  });

  test("a character over two tokens: both ids go out when they are decided, the text with the second", async () => {
    const reply = await server.stream("/v1/completions", { prompt: bytesOf("é!"), ...greedy, max_tokens: 3 });
    expect(reply.chunks.slice(0, 3).map((c) => c.text)).toEqual(["", "é", "!"]);
    expect(idsOf(reply)).toEqual(bytesOf("é!"));
  });

  test("a character that the last token leaves unfinished becomes U+FFFD", async () => {
    const reply = await server.stream("/v1/completions", { prompt: bytesOf("é"), ...greedy, max_tokens: 1 });
    expect(textOf(reply)).toBe("\uFFFD");
  });

  test("the end of the text ends the answer, is not sent and not counted", async () => {
    const reply = await server.stream("/v1/completions", { prompt: [...bytesOf("ab"), EOS], ...greedy });
    expect([idsOf(reply), finishOf(reply), usageOf(reply)?.completion_tokens]).toEqual([bytesOf("ab"), "stop", 2]);
  });

  test("with ignore_eos it is a token like any other, without text", async () => {
    const reply = await server.stream("/v1/completions", { prompt: [...bytesOf("ab"), EOS], ...greedy, ignore_eos: true, max_tokens: 4 });
    expect([idsOf(reply), textOf(reply), finishOf(reply)]).toEqual([[...bytesOf("ab"), EOS, ...bytesOf("a")], "aba", "length"]);
  });

  test("a stop string over three tokens ends the answer before it; the engine is told to stop", async () => {
    const reply = await server.stream("/v1/completions", { prompt: bytesOf("xSTOPy"), ...greedy, max_tokens: 900, stop: ["STO"] });
    expect([textOf(reply), finishOf(reply)]).toEqual(["x", "stop"]);
    expect(idsOf(reply)).toEqual(bytesOf("xSTO"));
    await server.line(/^cancelled after 4$/);
  });

  test("what could have become a stop string and did not is sent after all", async () => {
    const reply = await server.stream("/v1/completions", { prompt: bytesOf("aSTa"), ...greedy, max_tokens: 7, stop: "STOP" });
    expect(reply.chunks.map((c) => c.text)).toEqual(["a", "", "", "STa", "a", "", "", "ST", ""]);
  });

  test("without stream the whole answer is one object with the same ids", async () => {
    const body = { messages: [{ role: "system", content: "zyx" }], ...greedy };
    const whole = await server.post("/v1/chat/completions", body);
    const streamed = await server.stream("/v1/chat/completions", body);
    const choice = (JSON.parse(whole.body) as { choices: { message: { role: string; content: string }; token_ids: number[] }[] })
      .choices[0];
    expect(choice?.message).toEqual({ role: "assistant", content: textOf(streamed) });
    expect(choice?.token_ids).toEqual(idsOf(streamed));
  });

  test("logprobs 1 gives the chosen token's own", async () => {
    const whole = await server.post("/v1/completions", { prompt: "zyx", ...greedy, max_tokens: 1, logprobs: 1 });
    const id = idOf("zyx");
    expect((JSON.parse(whole.body) as { choices: object[] }).choices[0]).toMatchObject({
      logprobs: { tokens: ["zyx"], token_ids: [id], token_logprobs: [-0.5], top_logprobs: [{ [String(id)]: -0.5 }] },
    });
  });
});

describe("what is refused", () => {
  const cases: [string, string, object][] = [
    ["/v1/completions", "tools", { prompt: "a", tools: [] }],
    ["/v1/completions", "messages", { prompt: "a", messages: [] }],
    ["/v1/chat/completions", "response_format", { messages: [{ role: "user", content: "a" }], response_format: {} }],
    ["/v1/chat/completions", "messages", { messages: [{ role: "tool", content: "a" }] }],
    ["/v1/chat/completions", "messages", { messages: [] }],
    ["/v1/completions", "prompt", { prompt: [TOKENS.length] }],
    ["/v1/completions", "prompt", { prompt: [] }],
    ["/v1/completions", "prompt", { prompt: [1.5] }],
    ["/v1/completions", "n", { prompt: "a", n: 2 }],
    ["/v1/completions", "max_tokens", { prompt: "a", max_tokens: CONTEXT }],
    ["/v1/completions", "max_tokens", { prompt: "a", max_tokens: 0 }],
    ["/v1/completions", "temperature", { prompt: "a", temperature: "hot" }],
    ["/v1/completions", "logprobs", { prompt: "a", temperature: 0, logprobs: 5 }],
    ["/v1/completions", "logprobs", { prompt: "a", temperature: 1, logprobs: 1 }],
    ["/v1/completions", "stop", { prompt: "a", stop: [""] }],
    ["/v1/completions", "stream", { prompt: "a", stream: 1 }],
    ["/v1/completions", "stream_options", { prompt: "a", stream_options: { continuous: true } }],
  ];
  test.each(cases)("%s: 400 names %s (%j)", async (path, field, body) => {
    const reply = await server.post(path, body);
    expect(reply.status).toBe(400);
    const { error } = JSON.parse(reply.body) as { error: { message: string; type: string; param: string } };
    expect([error.type, error.param]).toEqual(["invalid_request_error", field]);
    expect(error.message).toContain(field);
  });

  test("a body that is no JSON is 400, an unknown path 404, a wrong method 405", async () => {
    expect((await ask(server.socketPath, "GET", "/nothing")).status).toBe(404);
    expect((await ask(server.socketPath, "GET", "/v1/completions")).status).toBe(405);
    expect((await server.post("/v1/completions", [])).status).toBe(400);
  });

  test("bytes that are no HTTP are answered with 400 and the connection is closed", async () => {
    const socket = connect(server.socketPath);
    socket.end("garbage\r\n\r\n");
    const [data] = (await once(socket, "data")) as [Buffer];
    expect(data.toString()).toMatch(/^HTTP\/1.1 400 /);
    await once(socket, "close");
  });

  test("what the engine refuses is a 500 with its words, and the server lives on", async () => {
    const reply = await server.post("/v1/completions", { prompt: Array<number>(4001).fill(5), ...greedy });
    expect([reply.status, reply.body]).toEqual([500, expect.stringContaining("too long for the fake")]);
    expect((await server.get("/health")).status).toBe(200);
  });

  test("an engine without a scorer makes /v1/score a 500, not a dead server", async () => {
    expect((await server.post("/v1/score", { sequences: [[1]], query: [[[1]]] })).status).toBe(500);
    expect((await server.get("/health")).status).toBe(200);
  });

  test("an answer that the engine gives up is broken off, never ended as if it were whole", async () => {
    await expect(server.stream("/v1/completions", { prompt: bytesOf("ab%"), ...greedy })).rejects.toThrow();
  });
});

describe("connections", () => {
  test("64 at once share the engine's steps, and each gets its own answer", async () => {
    const texts = Array.from({ length: 64 }, (_, i) => `${i} and more`);
    const replies = await Promise.all(
      texts.map((t) => server.stream("/v1/completions", { prompt: bytesOf(t), ...greedy, max_tokens: 200 })),
    );
    expect(replies.map((r, i) => textOf(r).startsWith(texts[i] ?? "?"))).not.toContain(false);
    expect(server.lines).toContain("step of 64");
  });

  test("requests that are sent at once on one connection are answered one after the other", async () => {
    const socket = connect(server.socketPath);
    const post = (text: string): string => {
      const body = JSON.stringify({ prompt: text, ...greedy, max_tokens: 1 });
      return `POST /v1/completions HTTP/1.1\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    };
    socket.write(`${post("a")}${post("b")}GET /health HTTP/1.1\r\nConnection: close\r\n\r\n`);
    let text = "";
    for await (const part of socket) text += String(part);
    expect([...text.matchAll(/"text": "(\w)"|"status": "(ok)"/g)].map((m) => m[1] ?? m[2])).toEqual(["a", "b", "ok"]);
  });

  test("a client that goes away takes its generation with it", async () => {
    const socket = connect(server.socketPath);
    const body = JSON.stringify({ prompt: "cd", stream: true, ignore_eos: true, temperature: 0, max_tokens: 4900 });
    socket.write(`POST /v1/completions HTTP/1.1\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    await once(socket, "data");
    const before = server.lines.length;
    socket.destroy();
    const line = await server.line(/^cancelled after/, before);
    expect(Number(line.split(" ").at(-1))).toBeLessThan(4900);
  });
});

test("a file with another tokenizer is refused at start by name", async () => {
  const other = join(folder, "other.gguf");
  writeTinyGguf(other, "llama-bpe");
  await expect(startServer(PYTHON, other, [], env)).rejects.toThrow(/its tokenizer is 'gpt2' with pre 'llama-bpe'/);
});
