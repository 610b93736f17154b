import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { at, numbersAt, textAt, type ServedStack, type Value } from "../served.ts";
import { byteIds } from "../tiny-served.ts";

/** What the contract says of prompts, lengths, sampling, log-probabilities and scores, tried on any stack that serves the tiny model. `serve` starts the stack; `model` is the name that it gives its model. */
export function contractTests(serve: () => Promise<ServedStack>, model: string): void {
  let stack: ServedStack;
  beforeAll(async () => {
    stack = await serve();
  }, 180_000);
  afterAll(() => stack[Symbol.asyncDispose]());

  const greedy = { temperature: 0, ignore_eos: true };
  const choiceOf = async (body: Value, path = "/v1/completions") => at(await stack.post(path, body), "choices", 0);
  const idsOf = async (body: Value) => at(await choiceOf(body), "token_ids");

  test("a stack that answers /health is ready, and names its model", async () => {
    expect(await stack.call("GET", "/health")).toEqual({ status: 200, body: { status: "ok" } });
    expect(at(await stack.post("/v1/completions", { prompt: "x", max_tokens: 1 }), "model")).toBe(model);
    expect(at((await stack.call("GET", "/v1/models")).body, "data", 0, "id")).toBe(model);
  });

  describe("prompts", () => {
    test("a chat is the ChatML prompt with the default system message, as if its ids had been sent", async () => {
      const system = "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face";
      // "he" and "ll" are tokens of their own: 'he' in "helpful", nothing else.
      const ids = (text: string) => byteIds(text.replaceAll("he", "\u0000")).map((id) => (id === 3 ? 259 : id));
      const prompt = [1, ...ids(system), 2, ...ids("\n"), 1, ...ids("user\nBonjour"), 2, ...ids("\n"), 1, ...ids("assistant\n")];
      const chat = await stack.post("/v1/chat/completions", { messages: [{ role: "user", content: "Bonjour" }], max_tokens: 8, ...greedy });
      const completion = await stack.post("/v1/completions", { prompt, max_tokens: 8, ...greedy });
      expect(at(chat, "choices", 0, "token_ids")).toEqual(at(completion, "choices", 0, "token_ids"));
      expect(at(chat, "choices", 0, "message")).toEqual({ role: "assistant", content: at(completion, "choices", 0, "text") });
      expect(at(chat, "usage")).toEqual({ prompt_tokens: prompt.length, completion_tokens: 8, total_tokens: prompt.length + 8 });
    });

    test("a system message of one's own replaces the default one, and turns stay in order", async () => {
      const turns = [
        { role: "system", content: "Be so kind" },
        { role: "user", content: "A" },
        { role: "assistant", content: "B" },
        { role: "user", content: "C" },
      ];
      const prompt = [
        ...turns.flatMap((m) => [1, ...byteIds(`${m.role}\n${m.content}`), 2, ...byteIds("\n")]),
        1,
        ...byteIds("assistant\n"),
      ];
      const chat = await choiceOf({ messages: turns, max_completion_tokens: 6, ...greedy }, "/v1/chat/completions");
      expect(at(chat, "token_ids")).toEqual(await idsOf({ prompt, max_tokens: 6, ...greedy }));
    });

    test("merges apply by rank: 'hell' is one token, 'hel' is 'he' and 'l'", async () => {
      const sameAs = async (text: string, ids: number[]) =>
        expect(await idsOf({ prompt: text, max_tokens: 6, ...greedy })).toEqual(await idsOf({ prompt: ids, max_tokens: 6, ...greedy }));
      await sameAs("hell", [261]);
      await sameAs("hel", [259, 3 + 108]);
      await sameAs("<|im_end|>", byteIds("<|im_end|>"));
    });
  });

  describe("how long an answer is", () => {
    test("max_tokens tokens and finish_reason length with ignore_eos; 16 tokens by default", async () => {
      for (const n of [1, 2, 33]) {
        const choice = await choiceOf({ prompt: "abc", max_tokens: n, ...greedy });
        expect([at(choice, "token_ids", "length"), at(choice, "finish_reason")]).toEqual([n, "length"]);
      }
      expect(at(await choiceOf({ prompt: "abc", ...greedy }), "token_ids", "length")).toBe(16);
    });

    test("EOS ends an answer with stop, neither counted nor sent; with ignore_eos it is a token like any other", async () => {
      let ended = 0;
      for (let seed = 0; seed < 40; ++seed) {
        const body = { prompt: "abc", max_tokens: 60, temperature: 2, seed };
        const answer = await stack.post("/v1/completions", body);
        const ids = numbersAt(answer, "choices", 0, "token_ids");
        const all = (await idsOf({ ...body, ignore_eos: true })) as number[];
        expect(all).toHaveLength(60);
        const end = all.indexOf(2);
        expect(ids).toEqual(end < 0 ? all : all.slice(0, end));
        expect(at(answer, "choices", 0, "finish_reason")).toBe(end < 0 ? "length" : "stop");
        expect(at(answer, "usage", "completion_tokens")).toBe(ids.length);
        ended += Number(end >= 0);
      }
      expect(ended).toBeGreaterThan(2);
      expect(ended).toBeLessThan(38);
    });

    test("a stop string cuts the text before its first occurrence, wherever token borders are", async () => {
      const body = { prompt: "abc", max_tokens: 80, temperature: 1, seed: 5, ignore_eos: true };
      const whole = await choiceOf(body);
      const text = textAt(whole, "text");
      for (const length of [1, 2, 4, 7]) {
        const stop = new RegExp(`(?<=.{8})[^\\ufffd]{${length}}`, "s").exec(text)![0];
        const choice = await choiceOf({ ...body, stop: ["never to be seen, ever", stop] });
        expect([at(choice, "text"), at(choice, "finish_reason")]).toEqual([text.slice(0, text.indexOf(stop)), "stop"]);
        const ids = numbersAt(choice, "token_ids");
        expect(ids).toEqual(numbersAt(whole, "token_ids").slice(0, ids.length));
      }
      expect(at(await choiceOf({ ...body, stop: "never to be seen, ever" }), "text")).toBe(text);
    });
  });

  describe("sampling", () => {
    const body = { prompt: "seed", max_tokens: 24, temperature: 1, ignore_eos: true };

    test("the same seed gives the same tokens, another seed others, no seed others each time", async () => {
      expect(await idsOf({ ...body, seed: 7 })).toEqual(await idsOf({ ...body, seed: 7 }));
      expect(await idsOf({ ...body, seed: 7 })).not.toEqual(await idsOf({ ...body, seed: 8 }));
      expect(await idsOf({ ...body, seed: -7 })).not.toEqual(await idsOf({ ...body, seed: 7 }));
      expect(await idsOf(body)).not.toEqual(await idsOf(body));
    });

    test("a tiny temperature and a tiny nucleus are greedy", async () => {
      const expected = await idsOf({ ...body, temperature: 0 });
      expect(await idsOf({ ...body, temperature: 1e-4 })).toEqual(expected);
      expect(await idsOf({ ...body, top_p: 0 })).toEqual(expected);
      expect(await idsOf({ ...body, top_p: 1e-6 })).toEqual(expected);
    });

    test("tokens come as often as temperature and top_p say, and never from outside the nucleus", async () => {
      const row = at(
        await stack.post("/v1/score", { sequences: [[3]], query: [[Array.from({ length: 262 }, (_, i) => i)]] }),
        "logprobs",
        0,
        0,
      );
      const logprobs = row as number[];
      for (const [temperature, topP] of [
        [1, 1],
        [0.7, 0.5],
      ] as const) {
        const weights = logprobs.map((p) => Math.exp(p / temperature));
        const total = weights.reduce((a, b) => a + b);
        const order = weights.map((w, id) => ({ p: w / total, id })).sort((a, b) => b.p - a.p);
        let sum = 0;
        const nucleus = order.filter(({ p }) => (sum += p) - p < topP);
        const mass = nucleus.reduce((a, { p }) => a + p, 0);
        const counts = new Map<number, number>();
        const draws = 1500;
        for (let seed = 0; seed < draws; ++seed) {
          const one = { prompt: [3], max_tokens: 1, temperature, top_p: topP, seed, ignore_eos: true };
          const id = at(await choiceOf(one), "token_ids", 0) as number;
          counts.set(id, (counts.get(id) ?? 0) + 1);
        }
        expect([...counts.keys()].filter((id) => nucleus.every((n) => n.id !== id))).toEqual([]);
        for (const { p, id } of nucleus.slice(0, 8)) {
          const share = p / mass;
          const deviation = Math.sqrt(draws * share * (1 - share));
          expect(Math.abs((counts.get(id) ?? 0) - draws * share)).toBeLessThan(5 * deviation + 1);
        }
      }
    });
  });

  test("logprobs: 0 gives the tokens' own log-probabilities and no others", async () => {
    const logprobs = at(await choiceOf({ prompt: "abc", max_tokens: 3, logprobs: 0, ...greedy }), "logprobs");
    expect(at(logprobs, "top_logprobs")).toEqual([{}, {}, {}]);
    expect([at(logprobs, "tokens", "length"), at(logprobs, "token_logprobs", "length")]).toEqual([3, 3]);
  });

  test("/v1/score answers nothing for what it is not asked, and several sequences at once", async () => {
    const body = { sequences: [[3, 4, 5], [9]], query: [[[], [7, 8], []], [[1]]] };
    const answer = at(await stack.post("/v1/score", body), "logprobs");
    expect(answer).toEqual([[[], [expect.any(Number), expect.any(Number)], []], [[expect.any(Number)]]]);
    expect(await stack.post("/v1/score", { sequences: [], query: [] })).toEqual({ logprobs: [] });
  });
}
