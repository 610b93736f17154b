import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { at, type ServedStack, type Value } from "../served.ts";

/** What a stack must refuse, and how it reads JSON. `serve` starts the stack. */
export function refusalTests(serve: () => Promise<ServedStack>): void {
  let stack: ServedStack;
  beforeAll(async () => {
    stack = await serve();
  }, 180_000);
  afterAll(() => stack[Symbol.asyncDispose]());

  const completions = "/v1/completions";
  const chat = "/v1/chat/completions";
  const user = { role: "user", content: "x" };

  describe("a request that is not served gets a 400 that names the field", () => {
    const cases: [string, { [key: string]: Value }, string][] = [
      [completions, { frequency_penalty: 1 }, "frequency_penalty"],
      [completions, { best_of: 1 }, "best_of"],
      [completions, { messages: [user] }, "messages"],
      [completions, { max_tokens: 0 }, "max_tokens"],
      [completions, { max_tokens: 1.5 }, "max_tokens"],
      [completions, { max_tokens: "9" }, "max_tokens"],
      [completions, { max_tokens: 4096 }, "max_tokens"],
      [completions, { max_completion_tokens: -1 }, "max_completion_tokens"],
      [completions, { temperature: 2.1 }, "temperature"],
      [completions, { temperature: true }, "temperature"],
      [completions, { top_p: -0.1 }, "top_p"],
      [completions, { seed: 0.5 }, "seed"],
      [completions, { n: 2 }, "n"],
      [completions, { logprobs: 21 }, "logprobs"],
      [completions, { stream: 1 }, "stream"],
      [completions, { ignore_eos: "yes" }, "ignore_eos"],
      [completions, { stream_options: { include_usage: true } }, "stream_options"],
      [completions, { stream: true, stream_options: { include_obfuscation: true } }, "stream_options.include_obfuscation"],
      [completions, { stream: true, stream_options: [] }, "stream_options"],
      [completions, { stop: [""] }, "stop"],
      [completions, { stop: [1] }, "stop"],
      [completions, { model: 4 }, "model"],
      [completions, { prompt: "" }, "prompt"],
      [completions, { prompt: [262] }, "prompt"],
      [completions, { prompt: [-1] }, "prompt"],
      [completions, { prompt: ["a", "b"] }, "prompt"],
      [completions, { prompt: null }, "prompt"],
      [chat, { prompt: "x" }, "prompt"],
      [chat, { response_format: { type: "json_object" } }, "response_format"],
      [chat, { tools: [] }, "tools"],
      [chat, { logprobs: true }, "logprobs"],
      [chat, { messages: [] }, "messages"],
      [chat, { messages: null }, "messages"],
      [chat, { messages: [user, { role: "tool", content: "x" }] }, "messages[1].role"],
      [chat, { messages: [{ role: "user", content: ["x"] }] }, "messages[0].content"],
      [chat, { messages: [{ role: "user" }] }, "messages[0].content"],
      [chat, { messages: [{ content: "x" }] }, "messages[0].role"],
      [chat, { messages: [{ ...user, name: "Ada" }] }, "messages[0].name"],
      [chat, { messages: ["x"] }, "messages[0]"],
      [chat, { messages: [{ role: "user", content: "x".repeat(5000) }] }, "max_tokens"],
      ["/v1/score", { sequences: [[262]], query: [[[]]] }, "sequences"],
      ["/v1/score", { sequences: [[]], query: [[]] }, "sequences"],
      ["/v1/score", { sequences: [[1, 2]], query: [[[]]] }, "query"],
      ["/v1/score", { sequences: [[1]], query: [[[999]]] }, "query"],
      ["/v1/score", { sequences: [[1]], query: [] }, "query"],
      ["/v1/score", { sequences: [[1]] }, "query"],
      ["/v1/score", { query: [] }, "sequences"],
      ["/v1/score", { sequences: [[1]], query: [[[]]], top_k: 1 }, "top_k"],
    ];
    const served: Record<string, { [key: string]: Value }> = {
      [completions]: { prompt: "x" },
      [chat]: { messages: [user] },
      "/v1/score": {},
    };

    test.for(cases)("%s %j → %s", async ([path, fields, field]) => {
      const answer = await stack.call("POST", path, { ...served[path], ...fields });
      expect(answer).toEqual({
        status: 400,
        body: { error: { message: expect.stringContaining(field) as string, type: "invalid_request_error", param: field } },
      });
    });
  });

  test("null means absent, prediction is ignored, model may be any name", async () => {
    const body = { prompt: "x", max_tokens: 2, temperature: 0, ignore_eos: true };
    const extras = { model: "whatever", stop: null, seed: null, stream: null, n: 1, prediction: { type: "content", content: "y" } };
    const ids = at(await stack.post(completions, body), "choices", 0, "token_ids");
    expect(at(await stack.post(completions, { ...body, ...extras }), "choices", 0, "token_ids")).toEqual(ids);
  });

  describe("a body that is not strict JSON gets a 400 that says where", () => {
    const bodies: Record<string, string> = {
      nothing: "",
      "a list": "[]",
      "a trailing comma": '{"prompt":"x",}',
      "more after the end": '{"prompt":"x"} {}',
      "a key twice": '{"prompt":"x","prompt":"y"}',
      "a leading zero": '{"prompt":"x","max_tokens":01}',
      "a bare point": '{"prompt":"x","top_p":.5}',
      "a number too large": '{"prompt":"x","top_p":1e999}',
      "a lone surrogate": '{"prompt":"\\ud800"}',
      "a reversed pair": '{"prompt":"\\udc00\\ud800"}',
      "an unknown escape": '{"prompt":"\\x"}',
      "a raw newline in a string": '{"prompt":"\n"}',
      "an open string": '{"prompt":"x',
      "deep nesting": "[".repeat(100_000),
      "not a value": '{"prompt":nul}',
    };
    test.for(Object.keys(bodies))("%s", async (name) => {
      const answer = await stack.call("POST", completions, bodies[name]);
      expect(answer.status).toBe(400);
      expect(at(answer.body, "error", "message")).toMatch(name === "a list" ? /object/ : /not JSON: .+ at offset \d+/);
    });
  });

  test("escapes, surrogate pairs and exponents are read", async () => {
    // By default an answer is sampled, and ends before its two tokens whenever EOS is drawn.
    const prompt = '"\\u0041\\ud83d\\ude00\\n\\t\\"\\\\\\/ é😀"';
    const usage = at((await stack.call("POST", completions, `{"prompt":${prompt},"max_tokens":2e0,"ignore_eos":true}`)).body, "usage");
    expect(usage).toEqual({ prompt_tokens: Buffer.byteLength('A😀\n\t"\\/ é😀'), completion_tokens: 2, total_tokens: 19 });
  });

  test("unknown paths get 404, wrong methods 405", async () => {
    expect((await stack.call("GET", "/nothing")).status).toBe(404);
    expect((await stack.call("POST", "/health", {})).status).toBe(405);
    expect((await stack.call("GET", completions)).status).toBe(405);
  });
}
