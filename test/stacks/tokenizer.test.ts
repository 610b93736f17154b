import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { gunzipSync } from "node:zlib";
import { beforeAll, expect, test } from "vitest";
import { weightsPath } from "../kit/weights.ts";
import { builtStack } from "./tree.ts";

let binary: string;
beforeAll(async () => (binary = await builtStack()), 180_000);

async function tokenize(strings: readonly string[]): Promise<string[]> {
  const child = spawn(binary, ["--model", weightsPath(), "--tokenize"], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(strings.map((s) => `${JSON.stringify(s)}\n`).join(""));
  return (await text(child.stdout)).trimEnd().split("\n");
}

test("10,500 strings of all scripts, signs, spaces and broken bytes get the ids that Hugging Face's tokenizers gives them", async () => {
  const packed = gunzipSync(readFileSync(join(import.meta.dirname, "tokenizer-fixture.json.gz"))).toString();
  const rows = JSON.parse(packed) as [string, string][];
  expect(rows.length).toBe(10_500);
  const ids = await tokenize(rows.map(([string]) => string));
  const digest = (list: string) => createHash("sha1").update(list.slice(1, -1)).digest("hex").slice(0, 6);
  const wrong = rows.filter(([, expected], i) => digest(ids[i] ?? "") !== expected);
  expect(wrong.slice(0, 5)).toEqual([]);
});

test("special tokens in text are text", async () => {
  const [ids = ""] = await tokenize(["<|im_end|><|im_start|>system"]);
  const list = JSON.parse(ids) as number[];
  expect(list.length).toBeGreaterThan(8);
  expect(list.filter((id) => id < 17)).toEqual([]);
});

test("a word of 300,000 letters takes no quadratic time", async () => {
  const start = performance.now();
  const [ids = ""] = await tokenize(["ab".repeat(150_000)]);
  expect((JSON.parse(ids) as number[]).length).toBeGreaterThan(50_000);
  expect(performance.now() - start).toBeLessThan(5_000); // 0.3 s here; quadratic would be minutes
});
