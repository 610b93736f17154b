import { beforeAll, expect, test } from "vitest";
import { at, numbersAt, type Value } from "./served.ts";
import { tinyLogprobs } from "./tiny-reference.ts";
import { builtStack } from "./tree.ts";
import { serveTiny } from "./tiny-served.ts";

const ids = Array.from({ length: 40 }, (_, i) => 3 + ((i * 37 + 11) % 259));
let binary: string;
beforeAll(async () => (binary = await builtStack()), 180_000);
const everyId = Array.from({ length: 262 }, (_, i) => i);

async function scores(stack: Awaited<ReturnType<typeof serveTiny>>, sequence: number[]): Promise<Value> {
  return at(await stack.post("/v1/score", { sequences: [sequence], query: [sequence.map(() => everyId)] }), "logprobs", 0);
}

test("/v1/score gives the float64 twin's log-probabilities, for every id after every token, within 2e-4", async () => {
  await using stack = await serveTiny(binary);
  const served = await scores(stack, ids);
  const errors = tinyLogprobs(ids).map((row, i) => Math.max(...row.map((expected, id) => Math.abs(Number(at(served, i, id)) - expected))));
  expect(Math.max(...errors)).toBeLessThan(2e-4);
});

test("greedy ids, their log-probabilities and the top 20 are what /v1/score says of the same tokens", async () => {
  await using stack = await serveTiny(binary);
  const prompt = ids.slice(0, 7);
  const body = { prompt, max_tokens: 24, temperature: 0, logprobs: 20, ignore_eos: true };
  const choice = at(await stack.post("/v1/completions", body), "choices", 0);
  const generated = numbersAt(choice, "token_ids");
  const served = await scores(stack, [...prompt, ...generated]);
  generated.forEach((id, i) => {
    const row = numbersAt(served, prompt.length + i - 1);
    expect(row[id]).toBe(Math.max(...row));
    expect(at(choice, "logprobs", "token_logprobs", i)).toBe(row[id]);
    const best = row.map((value, key): [string, number] => [String(key), value]).sort((a, b) => b[1] - a[1] || Number(a[0]) - Number(b[0]));
    expect(at(choice, "logprobs", "top_logprobs", i)).toEqual(Object.fromEntries(best.slice(0, 20)));
  });
  expect(at(choice, "logprobs", "token_ids")).toEqual(generated);
});

test("weights stored as F32, F16, Q4_0, Q4_1 and Q8_0 give the same answers to the last bit", async () => {
  const answers = [];
  for (const format of ["F32", "F16", "Q4_0", "Q4_1", "Q8_0"] as const) {
    await using stack = await serveTiny(binary, format);
    answers.push(await scores(stack, ids));
  }
  for (const answer of answers) expect(answer).toEqual(answers[0]);
});

test("other weights give other answers, and still the twin's", async () => {
  await using stack = await serveTiny(binary, "Q4_1", 7);
  const served = await scores(stack, ids.slice(0, 5));
  const twin = tinyLogprobs(ids.slice(0, 5), 7);
  expect(at(served, 4, 100)).toBeCloseTo(twin[4]![100]!, 3.6);
  expect(at(served, 4, 100)).not.toBeCloseTo(tinyLogprobs(ids.slice(0, 5))[4]![100]!, 2);
});
