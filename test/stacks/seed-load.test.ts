import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { tempDir } from "../kit/temp-dir.ts";
import { weightsPath } from "../kit/weights.ts";
import { encodeGguf, type GgufTensor, type GgufValue } from "./gguf-writer.ts";
import { at, ServedStack } from "./served.ts";
import { tinyKeys, tinyModel, tinyTensors } from "./tiny-model.ts";
import { builtStack } from "./tree.ts";

let binary: string;
beforeAll(async () => (binary = await builtStack()), 180_000);

function run(args: string[], model?: Buffer): { status: number | null; stderr: string } {
  using dir = tempDir("load");
  const path = join(dir.path, "model.gguf");
  if (model !== undefined) writeFileSync(path, model);
  const all = [...args, ...(model === undefined ? [] : ["--model", path, "--socket", join(dir.path, "s")])];
  const { status, stderr } = spawnSync(binary, all, { timeout: 10_000, input: "", encoding: "utf8" });
  return { status, stderr: stderr.replaceAll(path, "MODEL") };
}

describe("a bad weights file ends the stack with exit code 2 and one line that says what is wrong", () => {
  const model = tinyModel();

  test("cut off anywhere", () => {
    for (let i = 0; i < 60; ++i) {
      const size = Math.floor((model.length - 1) * (i / 60) ** 2); // denser in the head
      const { status, stderr } = run([], model.subarray(0, size));
      expect([size, status, stderr]).toEqual([size, 2, expect.stringMatching(/^error: MODEL: offset \d+: expected [^\n]+\n$/)]);
    }
  });

  const patched = (offset: number, value: number) => {
    const copy = Buffer.from(model);
    copy.writeUInt32LE(value, offset);
    return copy;
  };
  test.for<[string, Buffer, RegExp]>([
    ["another magic", patched(0, 0), /expected the magic GGUF/],
    ["another version", patched(4, 2), /expected version 3, got 2/],
    ["a billion tensors", patched(8, 2 ** 30), /expected/],
    ["a billion keys", patched(16, 2 ** 30), /expected/],
    ["a key longer than the file", patched(24, 0xffffffff), /expected 4294967295 bytes of a key/],
  ])("%s", ([, bytes, message]) => {
    expect(run([], bytes)).toEqual({ status: 2, stderr: expect.stringMatching(message) as string });
  });

  const without = (key: string) => Object.fromEntries(Object.entries(tinyKeys()).filter(([k]) => k !== key));
  test.for<[string, Record<string, GgufValue>, RegExp]>([
    ["another architecture", { ...tinyKeys(), "general.architecture": "gemma3" }, /general.architecture is not 'llama'/],
    ["no layers", { ...tinyKeys(), "llama.block_count": 0 }, /llama.block_count is out of range/],
    ["more layers than tensors", { ...tinyKeys(), "llama.block_count": 3 }, /no tensor 'blk.2.attn_norm.weight'/],
    ["heads that share no cache evenly", { ...tinyKeys(), "llama.attention.head_count_kv": 3 }, /do not fit/],
    ["another width", { ...tinyKeys(), "llama.feed_forward_length": 128 }, /'blk.0.ffn_gate.weight' has shape 96 x 64, expected 128 x 64/],
    ["another tokenizer", { ...tinyKeys(), "tokenizer.ggml.pre": "llama-bpe" }, /only gpt2 with pre smollm is served/],
    ["no EOS", without("tokenizer.ggml.eos_token_id"), /no number 'tokenizer.ggml.eos_token_id'/],
    ["no merges", without("tokenizer.ggml.merges"), /the file's tokenizer is/],
    ["a merge of unknown tokens", { ...tinyKeys(), "tokenizer.ggml.merges": ["q q"] }, /no token 'qq'/],
    [
      "fewer tokens than rows",
      { ...tinyKeys(), "tokenizer.ggml.tokens": ["<|im_start|>", "<|im_end|>"], "tokenizer.ggml.merges": ["a b"] },
      /token/,
    ],
    ["an alignment of nothing", { ...tinyKeys(), "general.alignment": 0 }, /general.alignment/],
  ])("%s", ([, keys, message]) => {
    expect(run([], encodeGguf(keys, tinyTensors("F32")))).toEqual({ status: 2, stderr: expect.stringMatching(message) as string });
  });

  const changed = (name: string, change: Partial<GgufTensor>) =>
    encodeGguf(
      tinyKeys(),
      tinyTensors("F32").map((t) => (t.name === `${name}.weight` ? { ...t, ...change } : t)),
    );
  test.for<[string, Buffer, RegExp]>([
    [
      "a format that is not served",
      changed("blk.0.attn_q", { type: 12 }),
      /F32, F16, Q4_0, Q4_1 or Q8_0 in 'blk.0.attn_q.weight', got type 12/,
    ],
    ["a row that is no whole number of blocks", changed("blk.0.attn_q", { type: 8, cols: 33 }), /a shape that its type allows/],
    ["a matrix of no rows", changed("blk.0.attn_q", { rows: 0 }), /a shape that its type allows/],
    ["a matrix turned round", changed("blk.1.ffn_up", { rows: 64, cols: 96 }), /'blk.1.ffn_up.weight' has shape 64 x 96, expected 96 x 64/],
    ["a matrix as large as a disk", changed("blk.0.attn_q", { rows: 2 ** 24, cols: 2 ** 24 }), /but the file ends at/],
  ])("%s", ([, bytes, message]) => {
    expect(run([], bytes)).toEqual({ status: 2, stderr: expect.stringMatching(message) as string });
  });
});

test.for<[string, string[], RegExp]>([
  ["no arguments", [], /usage/],
  ["an unknown flag", ["--port", "1"], /--port: usage/],
  ["a flag without its value", ["--model"], /--model: usage/],
  ["a missing file", ["--model", "/nonexistent", "--socket", "/tmp/x"], /\/nonexistent: No such file/],
  ["a folder as the file", ["--model", "/tmp", "--socket", "/tmp/x"], /\/tmp/],
])("%s: exit code 2 and a message", ([, args, message]) => {
  expect(run(args)).toEqual({ status: 2, stderr: expect.stringMatching(message) as string });
});

test("a socket path that cannot be is refused with its reason", () => {
  using dir = tempDir("socket");
  const model = join(dir.path, "m");
  writeFileSync(model, tinyModel());
  for (const socket of [join(dir.path, "x".repeat(200)), join(dir.path, "missing/s")]) {
    expect(run(["--model", model, "--socket", socket])).toEqual({ status: 2, stderr: expect.stringMatching(/--socket/) as string });
  }
});

test("the real model knows the capital of France, and says so in 7 tokens and a stop", async () => {
  await using stack = await ServedStack.start(binary, weightsPath());
  const messages = [{ role: "user", content: "What is the capital of France?" }];
  const answer = await stack.post("/v1/chat/completions", { messages, temperature: 0, max_tokens: 20 });
  expect(at(answer, "choices", 0, "message", "content")).toBe("The capital of France is Paris.");
  expect([at(answer, "choices", 0, "finish_reason"), at(answer, "usage")]).toEqual([
    "stop",
    { prompt_tokens: 37, completion_tokens: 7, total_tokens: 44 },
  ]);
});
