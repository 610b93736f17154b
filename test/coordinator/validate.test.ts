import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fitOf, ModelShape, parameters, type Workload } from "@vibeserve/shared";
import { describe, expect, test } from "vitest";
import { loadSettings } from "../../coordinator/src/config.ts";
import { submission } from "../../coordinator/src/cli/submission.ts";
import { validate } from "../../coordinator/src/cli/validate.ts";
import { openOutput } from "../../coordinator/src/cli/output.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { writeTinyCheckpoint } from "../kit/tiny-checkpoint.ts";

const ROOT = join(import.meta.dirname, "../..");
const MODELS = join(ROOT, "targets/models");
const shape = (name: string): ModelShape => ModelShape.parse(JSON.parse(readFileSync(join(MODELS, `${name}.json`), "utf8")));

interface Answer {
  targets: {
    file: string;
    name: string;
    ok: boolean;
    verified: boolean;
    problems: string[];
    notRunnable: string[];
    fit: { ok: boolean; bytes: number } | null;
  }[];
  errors: string[];
  checkpoint: { sha256: string } | null;
}

/** What `vibeserve validate --json` answers, and the error that it ends with. */
async function run(
  files: string[],
  options: { checkpoint?: string } = {},
  root = ROOT,
): Promise<{ answer: Answer; error: { exitCode?: number; message: string } | null }> {
  let text = "";
  const output = openOutput(true, { out: { write: (s: string) => (text += s) } as never, err: process.stderr });
  const error = await validate({ settings: { ...loadSettings({}), root }, context: undefined, output, version: "0" }, files, options).then(
    () => null,
    (e: unknown) => e as { exitCode?: number; message: string },
  );
  return { answer: JSON.parse(text || "null") as Answer, error };
}

test("every shipped target is good, those for accelerators are unverified and not run yet, and each says why", async () => {
  const { answer, error } = await run([]);
  expect(error).toBeNull();
  expect(answer.targets.map((t) => t.name)).toEqual(
    expect.arrayContaining([
      "cpu-chat",
      "h100-chat",
      "h100-chat-70b",
      "h100-code-edit",
      "l4-hybrid-prefix",
      "apple-m3-json",
      "mi300x-chat",
    ]),
  );
  for (const t of answer.targets) {
    expect([t.name, t.ok, t.problems]).toEqual([t.name, true, []]);
    if (["cpu-chat", "fleet"].includes(t.name)) expect([t.name, t.verified, t.notRunnable]).toEqual([t.name, true, []]);
    else expect([t.name, t.verified, t.notRunnable.length > 0, t.fit?.ok]).toEqual([t.name, false, true, true]);
  }
  const of = (name: string) => answer.targets.find((t) => t.name === name)?.notRunnable.join("\n");
  expect(of("h100-code-edit")).toContain("workload.prediction: the load generator sends no prediction");
  expect(of("l4-hybrid-prefix")).toContain("stacks/torch does not load olmo_hybrid");
  expect(of("h100-chat")).not.toContain("workload");
});

test("a Qwen2 checkpoint, biases and all, is a shape that stacks/torch loads", async () => {
  using dir = tempDir("qwen2");
  for (const part of ["targets", "stacks", "prompts/skills"]) cpSync(join(ROOT, part), join(dir.path, part), { recursive: true });
  // Of huggingface.co/Qwen/Qwen2.5-0.5B-Instruct, what decides sizes; its model card: 0.49B parameters, 0.36B without the embedding.
  const config = {
    ...{ model_type: "qwen2", vocab_size: 151_936, hidden_size: 896, intermediate_size: 4864, num_hidden_layers: 24 },
    ...{ num_attention_heads: 14, num_key_value_heads: 2, max_position_embeddings: 32_768, tie_word_embeddings: true },
  };
  expect(parameters(ModelShape.parse(config))).toBe(494_032_768);
  writeFileSync(join(dir.path, "targets/models/qwen2.5-0.5b.json"), JSON.stringify(config));
  const chat = readFileSync(join(ROOT, "targets/l4/chat.yaml"), "utf8");
  const target = join(dir.path, "qwen2.yaml");
  writeFileSync(target, chat.replace(/shape: [^,]*/, "shape: qwen2.5-0.5b"));
  const { answer, error } = await run([target], {}, dir.path);
  expect(error).toBeNull();
  expect(answer.targets[0]?.notRunnable.join()).not.toContain("does not load");
});

test("a target that is not runnable yet is refused when it is submitted", () => {
  expect(() => submission(join(ROOT, "targets/h100/code-edit.yaml"), {}, "x")).toThrow(
    /code-edit.yaml: not runnable yet: workload.prediction/,
  );
});

describe("the arithmetic", () => {
  test.for(Object.entries(JSON.parse(readFileSync(join(MODELS, "sources.json"), "utf8")) as Record<string, { parameters: number }>))(
    "%s has as many parameters as transformers makes for its config",
    ([name, source]) => expect(parameters(shape(name))).toBe(source.parameters),
  );

  test("every shape has a source, and every source a shape", () => {
    const shapes = readdirSync(MODELS).filter((f) => f !== "sources.json");
    expect(shapes.map((f) => f.replace(".json", "")).sort()).toEqual(
      Object.keys(JSON.parse(readFileSync(join(MODELS, "sources.json"), "utf8")) as object).sort(),
    );
  });

  const workload = (over: Partial<Workload>): Workload => ({
    arrival: { process: "closed", concurrency: 2 },
    prompt: { distribution: "fixed", tokens: 900 },
    output: { distribution: "uniform", min: 1, max: 100 },
    requests: 4,
    ...over,
  });
  const kvOf = (w: Workload) => fitOf(shape("llama-3.1-8b-instruct"), { weights: "bfloat16", deviceMiB: 81559 }, w).items[1]!.bytes;

  test("a KV cache is 128 KiB a token of Llama-3.1-8B, for the longest requests at once; a shared prefix counts once", () => {
    expect(kvOf(workload({}))).toBe(131072 * 2 * 1000);
    expect(kvOf(workload({ sharedPrefix: { tokens: 5000, warm: true } }))).toBe(131072 * (5000 + 2000));
    expect(kvOf(workload({ arrival: { process: "poisson", ratePerS: 10 }, requests: 1000 }))).toBe(131072 * 50 * 1000);
  });

  test("on several devices each holds its share of weights and keys, and what is not divided in full", () => {
    const llama = shape("llama-3.1-70b-instruct");
    const fit = (devices: number, of = llama) => fitOf(of, { weights: "bfloat16", deviceMiB: 81559, devices }, workload({}));
    const [one, four] = [fit(1), fit(4)];
    expect([one.ok, four.ok]).toEqual([false, true]);
    expect(four.items.map((item, i) => one.items[i]!.bytes / item.bytes)).toEqual([4, 4, 1]);
    expect(four.items[0]!.how).toMatch(/ ÷ 4$/);
    expect(four.notes.join()).toContain("on each of 4 devices");
    // No more shares of keys and values than there are heads of them.
    expect(one.items[1]!.bytes / fit(16).items[1]!.bytes).toBe(llama.kvHeads);
  });

  test("what does not fit is said, and a request longer than the model's context too", () => {
    const fit = (deviceMiB: number, tokens: number) =>
      fitOf(shape("qwen3-32b"), { weights: "bfloat16", deviceMiB }, workload({ prompt: { distribution: "fixed", tokens } })).ok;
    expect([fit(81559, 900), fit(40000, 900), fit(819200, 40900)]).toEqual([true, false, false]);
  });
});

describe("a bad target ends with exit code 2, and file, line, value and fix", () => {
  const good = readFileSync(join(ROOT, "targets/h100/chat.yaml"), "utf8");
  test.for([
    [
      "another seed",
      "seed: stacks/torch",
      "seed: stacks/tourch",
      /T:\d+: seed: "stacks\/tourch": stack.json does not exist; there are: .*stacks\/torch/,
    ],
    [
      "a shape nobody wrote down",
      "shape: llama-3.1-8b-instruct",
      "shape: llama-4",
      /T:\d+: fits.shape: "llama-4": does not exist; there are: .*qwen3-32b/,
    ],
    ["a baseline for another device", "[vllm, sglang]", "[mlx-lm]", /T:\d+: baselines.0: "mlx-lm" runs on apple, and the device is nvidia/],
    [
      "a baseline for another format",
      "[vllm, sglang]",
      "[llama.cpp-cuda]",
      /T:\d+: baselines.0: "llama.cpp-cuda" reads gguf, and the model is hf/,
    ],
    ["more devices than its seed serves on", "workload:", "deviceCount: 17\nworkload:", /T:\d+: deviceCount: /],
    [
      "several devices for a seed that serves on one",
      /seed: stacks\/torch[^]*/,
      "seed: stacks/mlx\ndeviceCount: 2\nagent: playbook\nbudget: { wallS: 60 }\nbaselines: []\n",
      /T:\d+: deviceCount: 2: "stacks\/mlx" serves on 1 at the most/,
    ],
    [
      "several devices where a machine has one",
      /(kind: )nvidia([^]*)/,
      "$1cpu$2deviceCount: 2\n",
      /T:\d+: deviceCount: 2: a machine has one device of kind cpu; allowed: 1/,
    ],
    ["a device too small", "deviceMiB: 81559", "deviceMiB: 16384", /T:\d+: fits: 49.1 GiB do not fit 16.0 GiB; /],
    ["a seed for another format", "format: hf, ", "", /T:\d+: seed: "stacks\/torch" loads hf, and the model is gguf/],
    ["no reference", /accuracy:[^]*?\nseed/, "accuracy: { class: exact }\nseed", /T:\d+: accuracy.reference: is missing; /],
    ["no kind of device", "  vibeserve.dev/device.kind: nvidia\n", "", /T:\d+: device: no label vibeserve.dev\/device.kind; allowed: cpu/],
    ["a key that is none", "verified: false", "verfied: false", /T:\d+: verfied: unknown key; allowed: /],
  ] as [string, string | RegExp, string, RegExp][])("%s", async ([, from, to, expected]) => {
    using dir = tempDir("validate");
    const file = join(dir.path, "t.yaml");
    const text = good.replace(from, to);
    expect(text).not.toBe(good);
    writeFileSync(file, text);
    const { error } = await run([file]);
    expect(error?.exitCode).toBe(2);
    expect(error?.message.replaceAll(file, "T")).toMatch(expected);
  });
});

test("--checkpoint prints the digest of a folder, which changes with any file, and compares its shape", async () => {
  using dir = tempDir("validate");
  const [root, folder] = [join(dir.path, "root"), join(dir.path, "tiny")];
  for (const part of ["targets", "stacks/torch", "stacks/baselines", "prompts/skills/cuda-graph-decode"])
    cpSync(join(ROOT, part), join(root, part), { recursive: true });
  writeTinyCheckpoint(folder);
  const file = join(root, "targets/h100/chat.yaml");
  const other = await run([file], { checkpoint: folder }, root);
  expect(other.error?.message).toContain('fits.shape: "llama-3.1-8b-instruct" is not the shape of');
  cpSync(join(folder, "config.json"), join(root, "targets/models/llama-3.1-8b-instruct.json"));
  const first = await run([file], { checkpoint: folder }, root);
  expect(first.error).toBeNull();
  expect(first.answer.checkpoint?.sha256).toMatch(/^[0-9a-f]{64}$/);
  expect((await run([], { checkpoint: folder }, root)).answer, "by itself it is compared with no target").toMatchObject({
    targets: [],
    checkpoint: first.answer.checkpoint,
  });
  mkdirSync(join(folder, ".cache"));
  writeFileSync(join(folder, ".cache", "lock"), "");
  expect((await run([file], { checkpoint: folder }, root)).answer.checkpoint).toEqual(first.answer.checkpoint);
  writeFileSync(join(folder, "generation_config.json"), "{}");
  expect((await run([file], { checkpoint: folder }, root)).answer.checkpoint?.sha256).not.toBe(first.answer.checkpoint?.sha256);
  const { error } = await run([file], { checkpoint: join(folder, "nowhere") }, root);
  expect(error).toMatchObject({
    exitCode: 2,
    message: expect.stringMatching(/nowhere: not the folder of a .* checkpoint: it has no config/) as string,
  });
});
