import { afterAll, beforeAll, expect, test } from "vitest";
import { at, numbersAt, textAt, type ServedStack, type Value } from "../served.ts";
import { byteCharacters, tinyTokens } from "../tiny-model.ts";

/** How a streamed answer reads. `serve` starts the stack. */
export function streamTests(serve: () => Promise<ServedStack>): void {
  let stack: ServedStack;
  beforeAll(async () => {
    stack = await serve();
  }, 180_000);
  afterAll(() => stack[Symbol.asyncDispose]());

  const completions = "/v1/completions";
  const sampled = { prompt: "abc", max_tokens: 60, temperature: 1.5, ignore_eos: true };
  const collect = (path: string, body: { [key: string]: Value }) => stack.chunks(path, body);

  /** The bytes that an id of the tiny model stands for. */
  function bytesOf(id: number): number[] {
    const characters = byteCharacters();
    return id < 3 ? [] : Array.from(tinyTokens()[id]!, (c) => characters.indexOf(c));
  }

  test("a streamed answer has one chunk a token with its id, the same text, and the finish in the last", async () => {
    const chunks = await collect(completions, { ...sampled, seed: 1 });
    const whole = at(await stack.post(completions, { ...sampled, seed: 1 }), "choices", 0);
    expect(chunks).toHaveLength(60);
    expect(chunks.map((c) => at(c, "choices", 0, "token_ids"))).toEqual(numbersAt(whole, "token_ids").map((id) => [id]));
    expect(chunks.map((c) => textAt(c, "choices", 0, "text")).join("")).toBe(at(whole, "text"));
    expect(chunks.map((c) => at(c, "choices", 0, "finish_reason"))).toEqual([...Array.from({ length: 59 }, () => null), "length"]);
    expect(new Set(chunks.map((c) => at(c, "id"))).size).toBe(1);
  });

  test("text is the ids' bytes as UTF-8, with U+FFFD for what is none, and no character is ever split", async () => {
    for (let seed = 0; seed < 60; ++seed) {
      const chunks = await collect(completions, { ...sampled, seed });
      const ids = chunks.flatMap((c) => numbersAt(c, "choices", 0, "token_ids"));
      const texts = chunks.map((c) => textAt(c, "choices", 0, "text"));
      expect(texts.join("")).toBe(new TextDecoder().decode(Uint8Array.from(ids.flatMap(bytesOf))));
    }
  });

  test("while text is held back for a stop string the ids still go out, and no part of the stop string is sent", async () => {
    const text = textAt(await stack.post(completions, { ...sampled, seed: 4 }), "choices", 0, "text");
    const stop = /(?<=.{10})[^\ufffd]{5}/s.exec(text)![0];
    const chunks = await collect(completions, { ...sampled, seed: 4, stop });
    expect(chunks.map((c) => textAt(c, "choices", 0, "text")).join("")).toBe(text.slice(0, text.indexOf(stop)));
    expect(at(chunks.at(-1)!, "choices", 0, "finish_reason")).toBe("stop");
    for (const chunk of chunks) expect(at(chunk, "choices", 0, "token_ids", "length")).toBe(1);
  });

  test("text that only looked like a stop string is sent in the end", async () => {
    const text = textAt(await stack.post(completions, { ...sampled, temperature: 0 }), "choices", 0, "text");
    const chunks = await collect(completions, { ...sampled, temperature: 0, stop: `${text.slice(-10)}more` });
    expect(chunks.map((c) => textAt(c, "choices", 0, "text")).join("")).toBe(text);
  });

  test("a streamed chat names its role once, and its usage follows when asked for, in a chunk without choices", async () => {
    const body = { messages: [{ role: "user", content: "x" }], max_tokens: 5, temperature: 0, ignore_eos: true };
    const chunks = await collect("/v1/chat/completions", { ...body, stream_options: { include_usage: true } });
    expect(chunks.map((c) => at(c, "object"))).toEqual(Array.from({ length: 6 }, () => "chat.completion.chunk"));
    const usage = chunks.pop()!;
    expect([at(usage, "choices"), at(usage, "usage", "completion_tokens")]).toEqual([[], 5]);
    expect(chunks.map((c) => (at(c, "choices", 0, "delta") as { role?: string }).role)).toEqual([
      "assistant",
      ...Array.from({ length: 4 }),
    ]);
    const whole = await stack.post("/v1/chat/completions", body);
    expect(chunks.map((c) => textAt(c, "choices", 0, "delta", "content")).join("")).toBe(at(whole, "choices", 0, "message", "content"));
    expect(at(whole, "usage")).toEqual(at(usage, "usage"));
  });

  test("an answer that EOS ends at once is one chunk without ids", async () => {
    let seen = 0;
    for (let seed = 0; seed < 4000 && seen === 0; ++seed) {
      const chunks = await collect(completions, { prompt: [3], max_tokens: 1, temperature: 2, seed });
      const ids = numbersAt(chunks[0]!, "choices", 0, "token_ids");
      if (ids.length > 0) continue;
      expect([chunks.length, at(chunks[0]!, "choices", 0, "finish_reason")]).toEqual([1, "stop"]);
      ++seen;
    }
    expect(seen).toBe(1);
  });

  test("streamed log-probabilities are those of the whole answer, chunk by chunk", async () => {
    const body = { ...sampled, seed: 3, max_tokens: 9, logprobs: 2 };
    const whole = at(await stack.post(completions, body), "choices", 0, "logprobs");
    const chunks = (await collect(completions, body)).map((c) => at(c, "choices", 0, "logprobs"));
    for (const member of ["tokens", "token_ids", "token_logprobs", "top_logprobs"]) {
      expect(chunks.flatMap((c) => at(c, member))).toEqual(at(whole, member));
    }
  });
}
