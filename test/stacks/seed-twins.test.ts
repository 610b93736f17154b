import { beforeAll, expect, test } from "vitest";
import { at, numbersAt, type ServedStack, type Value } from "./served.ts";
import { serveTiny } from "./tiny-served.ts";
import { builtStack, type Seam } from "./tree.ts";

const completions = "/v1/completions";
const everyId = Array.from({ length: 262 }, (_, i) => i);
/** Prompts of 1 … 600 tokens: single rows, steps of many rows, and prompts of more rows than one step has. */
const prompts = Array.from({ length: 16 }, (_, i) =>
  Array.from({ length: 1 + ((i * i * 37) % 600) }, (_, j) => 3 + ((i * 31 + j * j * 7) % 259)),
);
const bodies: { [key: string]: Value }[] = prompts.map((prompt, i) => ({
  prompt,
  max_tokens: 4 + i,
  ignore_eos: true,
  temperature: i % 4 === 3 ? 1 : 0,
  seed: i,
  ...(i % 3 === 0 ? { logprobs: 5 } : {}),
}));
/** After a few positions everything, after the rest nothing: only rows that are wanted go on behind the last layer. */
const query = prompts.map((prompt) => prompt.map((_, j) => (j % 29 === 0 || j + 1 === prompt.length ? everyId : [])));

type Bindings = Partial<Record<Seam, string>>;
const served = async (bindings: Bindings, cpus?: string): Promise<ServedStack> =>
  serveTiny(await builtStack(bindings), undefined, undefined, cpus);
const scores = async (stack: ServedStack, sequences: number[][], asked: number[][][]): Promise<Value> =>
  at(await stack.post("/v1/score", { sequences, query: asked }), "logprobs");
const answers = (stack: ServedStack): Promise<Value[]> =>
  Promise.all(bodies.map(async (body) => at(await stack.post(completions, body), "choices", 0)));

let seed: { scores: Value; answers: Value[] };
beforeAll(async () => {
  await using stack = await served({});
  seed = { scores: await scores(stack, prompts, query), answers: await answers(stack) };
}, 180_000);

/** Largest difference between two answers of /v1/score. */
function apart(a: Value, b: Value): number {
  if (!Array.isArray(a) || !Array.isArray(b)) return Math.abs(Number(a) - Number(b));
  if (a.length !== b.length) return Infinity;
  return a.reduce<number>((most, x, i) => Math.max(most, apart(x, b[i]!)), 0);
}

/** Another order of the same sums in float32: what the layers of the tiny model make of it, with room. */
const TOLERANCE = 2e-4;

test("layer/fused gives the seed's log-probabilities, and greedy ids that are the seed's up to near ties", async () => {
  await using fused = await served({ layer: "fused", scheduler: "continuous" });
  expect(apart(await scores(fused, prompts, query), seed.scores)).toBeLessThan(TOLERANCE);
  await using judge = await served({});
  for (const [i, answer] of (await answers(fused)).entries()) {
    if (bodies[i]?.["temperature"] !== 0) continue;
    const prompt = prompts[i]!;
    const ids = numbersAt(answer, "token_ids");
    expect(ids).toHaveLength(4 + i);
    const whole = [...prompt, ...ids.slice(0, -1)];
    const rows = at(await scores(judge, [whole], [whole.map((_, j) => (j + 1 >= prompt.length ? everyId : []))]), 0);
    for (const [n, id] of ids.entries()) {
      const row = numbersAt(rows, prompt.length - 1 + n);
      expect(Math.max(...row) - row[id]!).toBeLessThan(TOLERANCE);
      if (i % 3 === 0) expect(Math.abs(Number(at(answer, "logprobs", "token_logprobs", n)) - row[id]!)).toBeLessThan(TOLERANCE);
    }
  }
}, 180_000);

test("head/fused-argmax answers to the last bit what the seed's head does, greedy, sampled and with log-probabilities, many rows at once", async () => {
  await using stack = await served({ head: "fused-argmax", scheduler: "continuous", threading: "pool" });
  expect(await answers(stack)).toEqual(seed.answers);
  expect(await scores(stack, prompts, query)).toEqual(seed.scores);
}, 180_000);

test.each(["0", "0,1", "0-2"])(
  "threading/pool answers to the last bit what one thread does, with --cpus %s",
  async (cpus) => {
    await using stack = await served({ threading: "pool", scheduler: "continuous" }, cpus);
    expect(await answers(stack)).toEqual(seed.answers);
    expect(await scores(stack, prompts, query)).toEqual(seed.scores);
  },
  180_000,
);
