import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { at, numbersAt, type ServedStack } from "../served.ts";
import { tinyLogprobs } from "../tiny-reference.ts";

const ids = Array.from({ length: 40 }, (_, i) => 3 + ((i * 37 + 11) % 259));
const everyId = Array.from({ length: 262 }, (_, i) => i);

/** A stack that computes in float32 against the float64 twin, alone and among others. */
export function twinTests(serve: () => Promise<ServedStack>): void {
  let stack: ServedStack;
  beforeAll(async () => {
    stack = await serve();
  }, 180_000);
  afterAll(() => stack[Symbol.asyncDispose]());

  const scores = async (sequence: number[]) =>
    at(await stack.post("/v1/score", { sequences: [sequence], query: [sequence.map(() => everyId)] }), "logprobs", 0);

  test("/v1/score gives the float64 twin's log-probabilities, for every id after every token, within 2e-4", async () => {
    const served = await scores(ids);
    const errors = tinyLogprobs(ids).map((row, i) =>
      Math.max(...row.map((expected, id) => Math.abs(Number(at(served, i, id)) - expected))),
    );
    expect(Math.max(...errors)).toBeLessThan(2e-4);
  });

  test("what it serves agrees with what it scores, and a long prompt beside short ones changes nobody's answer", async () => {
    const greedy = (prompt: number[], max: number) =>
      stack.post("/v1/completions", { prompt, max_tokens: max, temperature: 0, logprobs: 3, ignore_eos: true });
    const prompts = [Array.from({ length: 900 }, (_, i) => ids[i % 40]!), ids.slice(0, 7), ids.slice(0, 1), ids.slice(5, 30)];
    const alone = [];
    for (const prompt of prompts) alone.push(numbersAt(await greedy(prompt, 12), "choices", 0, "token_ids"));
    const together = await Promise.all(prompts.map((prompt) => greedy(prompt, 12)));
    for (const [i, answer] of together.entries()) {
      const made = numbersAt(answer, "choices", 0, "token_ids");
      expect(made).toEqual(alone[i]);
      const scored = await scores([...prompts[i]!, ...made]);
      made.forEach((id, j) => {
        const row = numbersAt(scored, prompts[i]!.length + j - 1);
        expect(row[id]).toBe(Math.max(...row));
        expect(Number(at(answer, "choices", 0, "logprobs", "token_logprobs", j))).toBeCloseTo(row[id]!, 4);
      });
    }
  });

  test("more requests than run at once are all answered, and a client that hangs up frees its place", async () => {
    // Several times: it may hang up at any point of a step.
    for (let i = 0; i < 8; i++) {
      const gone = new AbortController();
      const left = stack.stream("/v1/completions", { prompt: ids, max_tokens: 4000, temperature: 0, ignore_eos: true }, gone.signal);
      await left.next();
      gone.abort();
    }
    const answers = await Promise.all(
      Array.from({ length: 80 }, (_, i) =>
        stack.post("/v1/completions", { prompt: [3 + i, 9], max_tokens: 3, temperature: 0, ignore_eos: true }),
      ),
    );
    expect(answers.map((a) => at(a, "usage", "completion_tokens"))).toEqual(answers.map(() => 3));
    await pause(300);
    const used = stack.cpuSeconds();
    await pause(500);
    expect(stack.cpuSeconds() - used, "seconds of CPU in half a second in which nobody asked").toBeLessThan(0.25);
  });
}
