import { appendFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Pool, POOL_POSITIONS, Reference, type PoolOptions } from "../../gpu-agent/src/accuracy/index.ts";
import { loadTokenizer, readGguf, type Tokenizer } from "../../gpu-agent/src/tokenizer/index.ts";
import { weightsPath } from "../kit/weights.ts";
import { referenceExecutable } from "./kit.ts";
import { writeTinyGguf } from "./tiny-gguf.ts";

const root = mkdtempSync(join(tmpdir(), "pool-"));
const model = join(root, "tiny.gguf");
let reference: Reference;
let tokenizer: Tokenizer;
let dir = "";
let pools = 0;

beforeAll(async () => {
  writeTinyGguf(model, { dim: 32, ffn: 32, heads: 2, kvHeads: 1, layers: 1, vocab: 3000 }, "pool", readGguf(weightsPath()));
  tokenizer = loadTokenizer(model);
  reference = new Reference({ executable: await referenceExecutable(), model });
}, 120_000);
beforeEach(() => {
  dir = join(root, `pool-${pools++}`);
});
afterAll(async () => {
  await reference.close();
  rmSync(root, { recursive: true, force: true });
});

const open = (more: Partial<PoolOptions> = {}): Pool => Pool.open({ dir, modelDigest: "tiny", tokenizer, reference, ...more });
const names = async (pool: Pool, positions = 200): Promise<string[]> => (await pool.take({ positions })).sequences.map((s) => s.name);

describe("the hidden pool", () => {
  test("hands out no sequence twice, not even to two takers at once or after it was opened again", async () => {
    const pool = open();
    const taken = (await Promise.all([names(pool), names(pool), names(pool)])).flat();
    taken.push(...(await names(open())));
    expect(new Set(taken).size).toBe(taken.length);
  });

  test("hands out as many positions as asked for, in all depths", async () => {
    const slice = await open().take({ positions: 1300, mid: 1, deep: 1, long: 1 });
    expect(slice.positions).toBeGreaterThanOrEqual(1300);
    expect(slice.sequences.map((s) => s.depth).filter((d) => d !== "short")).toEqual(["mid", "deep", "long"]);
    const deepest = Math.max(...slice.sequences.map((s) => s.tokens.length));
    expect(deepest).toBeGreaterThan(1500);
    for (const s of slice.sequences) {
      expect(s.scores.from + s.scores.positions).toBe(s.tokens.length);
      expect(s.scores.logprobs.every((l) => l <= 0)).toBe(true);
    }
  });

  test("fills up to its positions, and goes on where it was stopped", async () => {
    const pool = open();
    const stop = new AbortController();
    const filling = pool.fill(stop.signal);
    setTimeout(() => stop.abort(), 100);
    await filling;
    const before = pool.scored;
    expect(before).toBeLessThan(POOL_POSITIONS);
    const again = open();
    expect(again.scored).toBe(before);
    await again.fill(new AbortController().signal);
    expect(again.scored).toBeGreaterThanOrEqual(POOL_POSITIONS);
    expect(again.wantsMore).toBe(false);
  });

  test("drops records that were changed, cut short or written for other weights, and scores others", async () => {
    const dropped: string[] = [];
    const first = await names(open(), 700);
    rmSync(join(dir, "used"));
    const [a, b] = first as [string, string];
    const path = (name: string): string => join(dir, `${name}.record`);
    const bytes = readFileSync(path(a));
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1);
    writeFileSync(path(a), bytes);
    appendFileSync(path(b), "x");
    const after = await names(open({ onDropped: (name) => dropped.push(name) }), 700);
    expect(dropped).toEqual(expect.arrayContaining([a, b]));
    expect(after).not.toContain(a);
    expect(after).not.toContain(b);
    const foreign: string[] = [];
    open({ modelDigest: "other", onDropped: (name) => foreign.push(name) });
    expect(foreign.length).toBe(readdirSync(dir).filter((f) => f.endsWith(".record")).length);
  });

  test("keeps seed and records from other users", async () => {
    await names(open());
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    for (const file of readdirSync(dir)) expect(statSync(join(dir, file)).mode & 0o777).toBe(0o600);
  });

  test("holds other sequences for another seed, the same for the public one", async () => {
    const tokens = async (more: Partial<PoolOptions>): Promise<string> => {
      dir = join(root, `pool-${pools++}`);
      return JSON.stringify((await open(more).take({ positions: 100 })).sequences.map((s) => s.tokens));
    };
    expect(await tokens({})).not.toBe(await tokens({}));
    expect(await tokens({ publicSeed: "public" })).toBe(await tokens({ publicSeed: "public" }));
  });
});
