import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { at, numbersAt, type ServedStack, type Value } from "./served.ts";
import { serveTiny } from "./tiny-served.ts";
import { builtStack } from "./tree.ts";

const completions = "/v1/completions";
const greedy = { temperature: 0, ignore_eos: true };

/** Prompts of 1 … 700 tokens, so that some are longer than a step and some share one. */
const prompts = Array.from({ length: 48 }, (_, i) =>
  Array.from({ length: 1 + ((i * i * 13) % 700) }, (_, j) => 3 + ((i * 31 + j * j * 7) % 259)),
);
const bodies: { [key: string]: Value }[] = prompts.map((prompt, i) => ({
  prompt,
  max_tokens: 1 + ((i * 7) % 40),
  ignore_eos: true,
  temperature: i % 3 === 2 ? 1 : 0,
  seed: i,
  ...(i % 5 === 0 ? { logprobs: 3 } : {}),
}));
const score = { sequences: prompts.slice(0, 6), query: prompts.slice(0, 6).map((p) => p.map((_, j) => (j % 3 === 0 ? [3, 77] : []))) };

/** What an answer says, less what differs from request to request. */
function said(answer: Value): Value {
  return [at(answer, "choices"), at(answer, "usage")];
}

let expected: { answers: Value[]; scores: Value };
beforeAll(async () => {
  await using seed = await serveTiny(await builtStack());
  expected = { answers: [], scores: await seed.post("/v1/score", score) };
  for (const body of bodies) expected.answers.push(said(await seed.post(completions, body)));
}, 180_000);

async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

describe.for(["batched-prefill", "continuous", "chunked"])("%s", (scheduler) => {
  let stack: ServedStack;
  beforeAll(async () => {
    stack = await serveTiny(await builtStack({ scheduler }));
  }, 180_000);
  afterAll(() => stack[Symbol.asyncDispose]());

  test("48 concurrent requests of many lengths, greedy and sampled, and scores among them, get to the last bit what the seed gives each alone", async () => {
    for (let round = 0; round < 2; ++round) {
      const answers = Promise.all(bodies.map((body) => stack.post(completions, body)));
      const scores = stack.post("/v1/score", score);
      expect((await answers).map(said)).toEqual(expected.answers);
      expect(await scores).toEqual(expected.scores);
    }
  });

  test("requests that are cancelled amid others leave the others' answers as they are, and free their places", async () => {
    const controls = Array.from({ length: 24 }, () => new AbortController());
    const doomed = controls.map(async (control, i) => {
      let tokens = 0;
      for await (const _ of stack.stream(completions, { prompt: prompts[i]!, max_tokens: 3000, ...greedy }, control.signal)) {
        if (++tokens > i) control.abort();
      }
    });
    const answers = Promise.all(bodies.map((body) => stack.post(completions, body)));
    // With one request at a time a doomed one may still wait for its first token when the last answer is there.
    const ended = Promise.allSettled(doomed);
    expect((await answers).map(said)).toEqual(expected.answers);
    for (const control of controls) control.abort();
    expect((await ended).map((e) => e.status)).toEqual(controls.map(() => "rejected"));
    const whole = await timeOf(() => stack.post(completions, { prompt: [3], max_tokens: 3000, ...greedy }));
    expect(await timeOf(() => stack.post(completions, { prompt: [3], max_tokens: 10, ...greedy }))).toBeLessThan(whole / 4);
  });

  test("more requests than places, and more positions than the caches may hold, are all served in the end", async () => {
    const body = { prompt: prompts[20]!, max_tokens: 3, ...greedy };
    const alone = numbersAt(await stack.post(completions, body), "choices", 0, "token_ids");
    const large = { prompt: [7], max_tokens: 4000, temperature: 2 }; // takes 4,032 of 32,768 positions, and ends early with EOS
    const answers = await Promise.all(Array.from({ length: 120 }, (_, i) => stack.post(completions, i % 10 === 0 ? large : body)));
    for (const [i, answer] of answers.entries()) {
      if (i % 10 !== 0) expect(numbersAt(answer, "choices", 0, "token_ids")).toEqual(alone);
    }
  });
});

describe("an answer of 20 tokens asked for just after a prompt of 4,000 tokens", () => {
  async function first(scheduler: string): Promise<string> {
    await using stack = await serveTiny(await builtStack({ scheduler }));
    const prompt = Array.from({ length: 4000 }, (_, i) => 3 + (i % 250));
    const long = await stack.open("POST", completions, { prompt, max_tokens: 1, stream: true, ...greedy }); // its head is there: it is queued
    const short = stack.post(completions, { prompt: [5], max_tokens: 20, ...greedy });
    const order = await Promise.race([text(long).then(() => "long"), short.then(() => "short")]);
    await short;
    return order;
  }

  test("is complete before that prompt is read, under chunked", async () => {
    expect(await first("chunked")).toBe("short");
  });

  test("waits for that prompt, under continuous", async () => {
    expect(await first("continuous")).toBe("long");
  });
});
