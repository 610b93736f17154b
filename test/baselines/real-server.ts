import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { finishOf, idsOf, type RunningServer, startServer, textOf, usageOf } from "./kit.ts";

const START_MS = 120_000;
const SCORE_MS = 180_000;
const QUESTION = { messages: [{ role: "user", content: "What is the capital of France?" }], temperature: 0 };
/** The same question as the model's template writes it, by Hugging Face's tokenizers. */
const QUESTION_IDS = [
  1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198, 1, 4093, 198, 1780, 314,
  260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198,
];

/** The candidate's contract, as far as a benchmark and the judge need it, against server.py with the real engine and the real weights. */
export function describeRealServer(python: () => string, model: string): void {
  describe("OpenVINO GenAI behind the contract", () => {
    let server: RunningServer;
    beforeAll(async () => {
      server = await startServer(python(), model);
    }, START_MS);
    afterAll(() => server[Symbol.asyncDispose]());

    test("a chat is answered greedily, a token a chunk, with the model's own end", async () => {
      const reply = await server.stream("/v1/chat/completions", { ...QUESTION, max_tokens: 40 });
      // With AVX-512 the engine computes otherwise than with AVX2, and goes on after the name.
      expect(textOf(reply)).toMatch(/^The capital of France is Paris[.,]/);
      expect(finishOf(reply)).toBe(idsOf(reply).length === 40 ? "length" : "stop");
      expect(reply.chunks.filter((c) => c.ids.length > 0).every((c) => c.ids.length === 1)).toBe(true);
      const [prompt_tokens, completion_tokens] = [QUESTION_IDS.length, idsOf(reply).length];
      expect(usageOf(reply)).toEqual({ prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens });
    });

    test("a chat and its prompt as ids give the same answer", async () => {
      const limits = { temperature: 0, max_tokens: 24, ignore_eos: true };
      const chat = await server.stream("/v1/chat/completions", { ...QUESTION, ...limits });
      const completion = await server.stream("/v1/completions", { prompt: QUESTION_IDS, ...limits });
      expect(idsOf(completion)).toEqual(idsOf(chat));
      expect([idsOf(chat).length, finishOf(chat)]).toEqual([24, "length"]);
      expect(idsOf(chat)).toContain(2);
    });

    test("twelve at once keep their own answers", async () => {
      const word = (i: number): string => `Repeat the number ${i} five times.`;
      const ask = (i: number) =>
        server.stream("/v1/chat/completions", {
          messages: [{ role: "user", content: word(i) }],
          temperature: 0,
          max_tokens: 24,
          ignore_eos: true,
        });
      const together = await Promise.all(Array.from({ length: 12 }, (_, i) => ask(100 + i)));
      expect(together.map((r) => idsOf(r).length)).toEqual(Array<number>(12).fill(24));
      expect(together.map((r) => usageOf(r)?.completion_tokens)).toEqual(Array<number>(12).fill(24));
      expect(new Set(together.map(textOf)).size).toBeGreaterThan(6);
    });

    test("the same seed draws the same answer at temperature 1", async () => {
      const draw = () => server.stream("/v1/chat/completions", { ...QUESTION, temperature: 1, seed: 7, max_tokens: 16, ignore_eos: true });
      expect(idsOf(await draw())).toEqual(idsOf(await draw()));
    });

    test(
      "/v1/score gives the served tokens about the log-probabilities that were served, and says that it infers directly",
      async () => {
        const body = { prompt: QUESTION_IDS, temperature: 0, max_tokens: 12, ignore_eos: true, logprobs: 1 };
        const served = JSON.parse((await server.post("/v1/completions", body)).body) as {
          choices: { token_ids: number[]; logprobs: { token_logprobs: number[] } }[];
        };
        const choice = served.choices[0];
        if (!choice) throw new Error("no choice");
        const sequence = [...QUESTION_IDS, ...choice.token_ids];
        const query = sequence.map((_, i) => (i >= QUESTION_IDS.length - 1 && i + 1 < sequence.length ? [sequence[i + 1] ?? -1] : []));
        const reply = await server.post("/v1/score", { sequences: [sequence], query: [query] });
        expect(reply.status, reply.body).toBe(200);
        const scored = JSON.parse(reply.body) as { logprobs: number[][][]; engine: string };
        expect(scored.engine).toBe("same weights, direct infer");
        expect(scored.logprobs[0]?.map((l) => l.length)).toEqual(query.map((q) => q.length));
        const distance = scored.logprobs[0]?.flat().map((p, i) => Math.abs(p - (choice.logprobs.token_logprobs[i] ?? NaN)));
        // Pages and an 8-bit cache there, one contiguous cache here: close, never equal, and less so on some processors.
        expect(distance).toHaveLength(12);
        expect(Math.max(...(distance ?? [NaN]))).toBeLessThan(1);
        expect((distance ?? []).reduce((sum, d) => sum + d, 0) / 12).toBeLessThan(0.2);
      },
      SCORE_MS,
    );

    test("a score that asks for an id outside the vocabulary, or for too few positions, is 400", async () => {
      for (const [field, body] of [
        ["query", { sequences: [[1, 2]], query: [[[49152], []]] }],
        ["query", { sequences: [[1, 2]], query: [[[1]]] }],
        ["sequences", { sequences: [[]], query: [[]] }],
        ["top", { sequences: [[1]], query: [[[1]]], top: 3 }],
      ] as const) {
        const reply = await server.post("/v1/score", body);
        expect([reply.status, (JSON.parse(reply.body) as { error: { param: string } }).error.param]).toEqual([400, field]);
      }
    });
  });
}
