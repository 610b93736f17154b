import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../../shared/src/index.ts";
import { mutateGguf, Reference, ReferenceError } from "../../gpu-agent/src/accuracy/index.ts";
import { loadTokenizer } from "../../gpu-agent/src/tokenizer/index.ts";
import { weightsPath } from "../kit/weights.ts";
import { referenceExecutable } from "./kit.ts";
import { writeTinyGguf, type TinyTensor } from "./tiny-gguf.ts";
import { tinyLlama } from "./tiny-llama.ts";

const shape = { dim: 64, ffn: 96, heads: 4, kvHeads: 2, layers: 2, vocab: 300 };
const dir = mkdtempSync(join(tmpdir(), "reference-"));
const model = join(dir, "tiny.gguf");
const rng = createRng("reference");
const sequenceOf = (n: number): number[] => Array.from({ length: n }, () => rng.int(shape.vocab));
let executable: string;
let tensors: Map<string, TinyTensor>;

beforeAll(async () => {
  executable = await referenceExecutable();
  tensors = writeTinyGguf(model, shape, "tiny");
}, 120_000);
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("the reference", () => {
  test("agrees with a plain twin in double, in every weight format, to 3e-5 nat", async () => {
    await using reference = new Reference({ executable, model });
    for (const length of [1, 7, 41]) {
      const tokens = sequenceOf(length);
      const twin = tinyLlama(shape, tensors, tokens);
      const [scores] = await reference.score([{ tokens }]);
      expect(scores!.positions).toBe(length);
      for (let p = 0; p < length; p++) {
        const ranked = Array.from(twin[p]!, (logprob, id) => ({ logprob, id })).sort((a, b) => b.logprob - a.logprob);
        expect(scores!.ids[p * 64]).toBe(ranked[0]!.id);
        for (let k = 0; k < 64; k++) expect(scores!.logprobs[p * 64 + k]).toBeCloseTo(twin[p]![scores!.ids[p * 64 + k]!]!, 4);
        if (p + 1 < length) expect(Math.abs(scores!.next[p]! - twin[p]![tokens[p + 1]!]!)).toBeLessThan(3e-5);
        else expect(scores!.next[p]).toBeNaN();
      }
    }
  });

  test("says of the real weights what a float64 twin in numpy says", async () => {
    const path = weightsPath();
    const tokenizer = loadTokenizer(path);
    await using reference = new Reference({ executable, model: path });
    const tokens = tokenizer.encodeChat([{ role: "user", content: "What is the capital of France?" }]);
    const [scores] = await reference.score([{ tokens, from: tokens.length - 1 }]);
    expect(Array.from(scores!.ids.subarray(0, 4), (id) => tokenizer.decode([id]))).toEqual(["The", "L", "La", "Al"]);
    const twin = [-1.882715, -1.964811, -2.265674, -2.806421];
    twin.forEach((logprob, k) => expect(Math.abs(scores!.logprobs[k]! - logprob)).toBeLessThan(2e-5));
  });

  test("answers for extra ids and from a later position as it does for all", async () => {
    await using reference = new Reference({ executable, model });
    const tokens = sequenceOf(20);
    const [all, tail] = await reference.score([
      { tokens },
      {
        tokens,
        from: 15,
        extras: [
          { position: 16, id: 3 },
          { position: 19, id: 299 },
        ],
      },
    ]);
    expect(tail!.positions).toBe(5);
    expect(tail!.ids).toEqual(all!.ids.slice(15 * 64));
    expect(tail!.logprobs).toEqual(all!.logprobs.slice(15 * 64));
    const twin = tinyLlama(shape, tensors, tokens);
    expect(tail!.extras[0]).toBeCloseTo(twin[16]![3]!, 4);
    expect(tail!.extras[1]).toBeCloseTo(twin[19]![299]!, 4);
  });

  test("gives the same bits with the plain kernel and with the widest, on one thread and on two, alone and in a batch with shared beginnings", async () => {
    const start = sequenceOf(30);
    const batch = [start, [...start, 5, 6, 7], [...start.slice(0, 10), ...sequenceOf(25)], sequenceOf(3)].map((tokens) => ({ tokens }));
    await using reference = new Reference({ executable, model });
    await using plain = new Reference({ executable, model, threads: 1, kernel: "default" });
    const together = await reference.score(batch);
    for (const [i, s] of batch.entries()) expect((await plain.score([s]))[0]).toEqual(together[i]);
  });

  test("ends when cancelled, and answers the next request rightly", async () => {
    await using reference = new Reference({ executable, model });
    const tokens = sequenceOf(12);
    const [before] = await reference.score([{ tokens }]);
    const abort = new AbortController();
    const long = reference.score(
      Array.from({ length: 40 }, () => ({ tokens: sequenceOf(1000) })),
      abort.signal,
    );
    abort.abort(new Error("enough"));
    await expect(long).rejects.toThrow("enough");
    expect((await reference.score([{ tokens }]))[0]).toEqual(before);
  });

  test("refuses what can't be scored with a reason, and a model that is none", async () => {
    await using reference = new Reference({ executable, model });
    await expect(reference.score([{ tokens: [300] }])).rejects.toThrow(/300 is outside the vocabulary/);
    await expect(reference.score([{ tokens: Array.from({ length: 5000 }, () => 1) }])).rejects.toThrow(/longer than the context of 4096/);
    await using broken = new Reference({ executable, model: import.meta.filename });
    await expect(broken.score([{ tokens: [1] }])).rejects.toThrow(ReferenceError);
  });

  test("says something else of mutated weights, the same for the same seed", async () => {
    const [a, b, c] = ["a", "b", "c"].map((n) => join(dir, `${n}.gguf`)) as [string, string, string];
    await mutateGguf({ from: model, to: a, seed: "1" });
    await mutateGguf({ from: model, to: b, seed: "1" });
    await mutateGguf({ from: model, to: c, seed: "2" });
    const tokens = sequenceOf(10);
    const of = async (path: string) => {
      await using reference = new Reference({ executable, model: path });
      return (await reference.score([{ tokens }]))[0]!.logprobs;
    };
    const [plain, first, again, other] = await Promise.all([model, a, b, c].map(of));
    expect(first).toEqual(again);
    expect(first).not.toEqual(plain);
    expect(first).not.toEqual(other);
  });
});
