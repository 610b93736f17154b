import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Feature, folderDigest } from "@vibeserve/shared";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { defaultSizes, hfReference, mutateFolder, Pool, Reference, runCheck } from "../../gpu-agent/src/accuracy/index.ts";
import { loadTokenizer } from "../../gpu-agent/src/tokenizer/index.ts";
import { Evaluator } from "../../gpu-agent/src/worker/evaluator.ts";
import { builtPythonStack, interpreterOf, pythonWith, type PythonWith } from "../kit/python-stack.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { writeTinyCheckpoint } from "../kit/tiny-checkpoint.ts";
import { at, ServedStack } from "../stacks/served.ts";
import { tinyLogprobs } from "../stacks/tiny-reference.ts";

const python = pythonWith("torch", "transformers", "safetensors", "tokenizers", "numpy");
const both = pythonWith("torch", "transformers", "safetensors", "mlx", "tokenizers", "numpy");
const dir = mkdtempSync(join(tmpdir(), "hf-reference-"));
const model = join(dir, "tiny");
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const interpreter = (found: PythonWith): string => interpreterOf(found, dir);

const ids = Array.from({ length: 40 }, (_, i) => 3 + ((i * 37 + 11) % 259));

describe.skipIf(python === null)(
  "transformers' own model as reference (skipped where no Python has torch and transformers)",
  { timeout: 120_000 },
  () => {
    let reference: Reference;
    beforeAll(async () => {
      writeTinyCheckpoint(model);
      reference = new Reference({ ...(await hfReference(interpreter(python!))), model });
    });
    afterAll(() => reference.close());

    test("says what it loaded, and in which precision", async () => {
      const hello = await reference.hello();
      expect(hello).toMatchObject({ protocol: 1, top: 64, vocab: 262, context: 4096, layers: 2 });
      expect(hello.kernel).toMatch(/^transformers \d+\.\S+ (cpu|cuda|mps) float32$/);
    });

    test("gives the float64 twin's log-probabilities within 2e-4, alone and padded beside others", async () => {
      const twin = tinyLogprobs(ids);
      const extras = [
        { position: 20, id: 100 },
        { position: 39, id: 0 },
      ];
      const scores = await reference.score([{ tokens: ids.slice(0, 3) }, { tokens: ids, from: 17, extras }, { tokens: ids.slice(0, 9) }]);
      const s = scores[1]!;
      expect([s.positions, s.ids.length]).toEqual([23, 23 * 64]);
      for (let p = 0; p < 23; p++) {
        const row = twin[17 + p]!;
        const best = Math.max(...row);
        expect(Math.abs(s.logprobs[p * 64]! - best)).toBeLessThan(2e-4);
        for (let k = 0; k < 64; k++) expect(Math.abs(s.logprobs[p * 64 + k]! - row[s.ids[p * 64 + k]!]!)).toBeLessThan(2e-4);
        if (p < 22) expect(Math.abs(s.next[p]! - row[ids[18 + p]!]!)).toBeLessThan(2e-4);
      }
      expect(s.next[22]).toBeNaN();
      expect(Math.abs(s.extras[0]! - twin[20]![100]!)).toBeLessThan(2e-4);
      expect(Math.abs(s.extras[1]! - twin[39]![0]!)).toBeLessThan(2e-4);
      const [alone] = await reference.score([{ tokens: ids.slice(0, 3) }]);
      expect(Math.max(...alone!.logprobs.map((v, i) => Math.abs(v - scores[0]!.logprobs[i]!)))).toBeLessThan(1e-4);
    });

    test("refuses what can't be scored, and goes on", async () => {
      await expect(reference.score([{ tokens: [5, 262] }])).rejects.toThrow(/outside the vocabulary/);
      await expect(reference.score([{ tokens: [5], from: 1 }])).rejects.toThrow(/behind the end/);
      await expect(reference.score([{ tokens: Array.from({ length: 4097 }, () => 5) }])).rejects.toThrow(/longer than the context/);
      expect(await reference.score([{ tokens: [5, 6] }])).toHaveLength(1);
    });

    test("a checkpoint that fits nowhere, and one that is none, end it with a message", async () => {
      const { executable, script } = await hfReference(interpreter(python!));
      const broken = join(dir, "broken");
      mkdirSync(broken, { recursive: true });
      const header = JSON.stringify({ w: { dtype: "BF16", shape: [2 ** 40, 8], data_offsets: [0, 2 ** 44] } });
      const size = Buffer.alloc(8);
      size.writeBigUInt64LE(BigInt(header.length));
      writeFileSync(join(broken, "model.safetensors"), Buffer.concat([size, Buffer.from(header)]));
      for (const [folder, message] of [
        [broken, /fits nowhere: float32 on \S+ *\S* *\d+/],
        [join(dir, "nothing"), /nothing/],
      ] as const) {
        const child = spawn(executable, [...script, folder, "--device", "cpu"], { stdio: ["pipe", "pipe", "pipe"] });
        let said = "";
        child.stderr.on("data", (text: Buffer) => (said += text.toString()));
        const [code] = (await once(child, "close")) as [number];
        expect([code, said]).toEqual([2, expect.stringMatching(message)]);
      }
    });

    test("stacks/torch passes the whole crown by this judge, mutated weights among it, and other weights fail the screen", async () => {
      const program = await builtPythonStack("torch", python!, dir);
      // Layers that count for more than the embedding: only then do other weights of theirs change what it says enough.
      const deep = join(dir, "deep");
      writeTinyCheckpoint(deep, 1, 8);
      const tokenizer = loadTokenizer(deep);
      const options = { ...(await hfReference(interpreter(python!))), model: deep };
      await using filler = new Reference(options);
      const pool = Pool.open({ dir: join(dir, "pool"), modelDigest: "deep", tokenizer, reference: filler });
      const sizes = {
        ...defaultSizes("crown", 1000),
        ...{
          slice: { positions: 900, mid: 1, deep: 1 },
          soloChats: 1,
          soloTokens: 12,
          chats: 4,
          chatTokens: 12,
          completions: 2,
          completionTokens: 5,
        },
        ...{ burst: { concurrency: 24, prompts: 4, tokens: 12 }, totalMs: 90_000, stallMs: 30_000 },
      };
      const judge = async (served: string, level: "crown" | "screen") => {
        await using stack = await ServedStack.start(program, served);
        return await runCheck({
          ...{
            socketPath: stack.socket,
            level,
            accuracy: "exact",
            pool,
            reference: options,
            tokenizer,
            features: Feature.options,
            sizes: () => sizes,
          },
          mutation: {
            dir,
            serve: async (path) => {
              const other = await ServedStack.start(program, path);
              return { socketPath: other.socket, stop: () => other[Symbol.asyncDispose]() };
            },
          },
        });
      };
      const report = await judge(deep, "crown");
      expect(report.gates.filter((g) => !g.ok)).toEqual([]);
      expect(report.gates.map((g) => g.name)).toContain("mutated weights: mean KL");
      const other = join(dir, "other");
      writeTinyCheckpoint(other, 7);
      expect((await judge(other, "screen")).ok).toBe(false);
    });

    test("the evaluator picks it for a folder, believes the folder by its digest, and notices a file that changed", async () => {
      const cacheDir = join(dir, "cache");
      const folder = join(cacheDir, "weights", "Tiny");
      writeTinyCheckpoint(folder);
      const files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
      const sum = (name: string) =>
        execFileSync("sha256sum", [join(folder, name)])
          .toString()
          .slice(0, 64);
      const ref = { name: "Tiny", file: "Tiny", format: "hf" as const, sha256: folderDigest(files.map((f) => [f, sum(f)] as const)) };
      const deps = {
        dir: join(dir, "evaluator"),
        cacheDir,
        compiler: null,
        threads: 2,
        idle: async () => undefined,
        log: pino({ level: "silent" }),
      };
      const evaluator = new Evaluator({ ...deps, python: interpreter(python!) });
      try {
        const { reference: own, tokenizer } = await evaluator.model(ref);
        expect((await own.hello()).kernel).toContain("transformers");
        expect(tokenizer.encode("hell")).toEqual([261]);
        await expect(new Evaluator({ ...deps, python: null }).model(ref)).rejects.toMatchObject({
          code: "no-python",
          attribution: "device",
        });
        writeFileSync(join(folder, "config.json"), `${readFileSync(join(folder, "config.json"), "utf8")}\n`);
        await expect(evaluator.model(ref)).rejects.toMatchObject({ code: "weights-damaged" });
      } finally {
        await evaluator.close();
      }
    });
  },
);

test("a Python that lacks transformers is named, and what it lacks", async () => {
  using bare = tempDir("bare-python");
  const file = join(bare.path, "python");
  writeFileSync(file, `#!/bin/sh\nexec python3 -I -S "$@"\n`);
  chmodSync(file, 0o755);
  await expect(hfReference(file)).rejects.toThrow(/python lacks torch,transformers,safetensors: install them there/);
});

test("mutated weights have the same files and shapes, other norms and rows, and are the same for the same seed", async () => {
  using folders = tempDir("mutate");
  const [from, a, again, b] = ["from", "a", "again", "b"].map((n) => join(folders.path, n)) as [string, string, string, string];
  writeTinyCheckpoint(from);
  for (const [to, seed] of [
    [a, "1"],
    [again, "1"],
    [b, "2"],
  ] as const)
    await mutateFolder({ from, to, seed });
  const bytes = (folder: string, name = "model.safetensors") => readFileSync(join(folder, name));
  expect(bytes(a)).toEqual(bytes(again));
  expect(bytes(a)).not.toEqual(bytes(b));
  expect(bytes(a).length).toBe(bytes(from).length);
  expect(bytes(a, "config.json")).toEqual(bytes(from, "config.json"));
  const header = Number(bytes(from).readBigUInt64LE());
  const table = JSON.parse(
    bytes(from)
      .subarray(8, 8 + header)
      .toString(),
  ) as Record<string, { data_offsets: [number, number] }>;
  const part = (folder: string, name: string) =>
    bytes(folder).subarray(...(table[name]!.data_offsets.map((o) => 8 + header + o) as [number, number]));
  expect(part(a, "model.layers.1.mlp.down_proj.weight")).toEqual(part(from, "model.layers.1.mlp.down_proj.weight"));
  for (const name of ["model.layers.0.input_layernorm.weight", "model.layers.1.mlp.up_proj.weight"])
    expect(part(a, name)).not.toEqual(part(from, name));
});

describe.skipIf(both === null)(
  "a checkpoint that mlx-lm's quantisation has packed (skipped where no Python has mlx and transformers)",
  { timeout: 120_000 },
  () => {
    const QUANTISE = `
import json, sys, mlx.core as mx
folder, bits = sys.argv[1], int(sys.argv[2])
weights = mx.load(folder + "/model.safetensors")
out = {}
for name, w in weights.items():
    if w.ndim == 2:
        q, s, b = mx.quantize(w, group_size=32, bits=bits)
        stem = name[: -len(".weight")]
        out.update({name: q, stem + ".scales": s, stem + ".biases": b})
    else:
        out[name] = w
mx.save_safetensors(folder + "/model.safetensors", out)
config = json.load(open(folder + "/config.json"))
config["quantization"] = {"group_size": 32, "bits": bits}
json.dump(config, open(folder + "/config.json", "w"))
`;
    test.for([8, 4])("is unpacked by the reference to what MLX computes, %d bits", async (bits) => {
      const packed = join(dir, `packed-${bits}`);
      writeTinyCheckpoint(packed);
      execFileSync(interpreter(both!), ["-c", QUANTISE, packed, String(bits)]);
      const folder = join(dir, `mlx-${bits}`);
      mkdirSync(folder);
      await using stack = await ServedStack.start(await builtPythonStack("mlx", both!, folder), packed);
      await using reference = new Reference({ ...(await hfReference(interpreter(both!))), model: packed });
      const [s] = await reference.score([{ tokens: ids }]);
      const query = ids.map((_, p) => [...s!.ids.subarray(p * 64, (p + 1) * 64)]);
      const served = at(await stack.post("/v1/score", { sequences: [ids], query: [query] }), "logprobs", 0);
      const errors = ids.map((_, p) => Math.max(...query[p]!.map((_, k) => Math.abs(Number(at(served, p, k)) - s!.logprobs[p * 64 + k]!))));
      expect(Math.max(...errors)).toBeLessThan(1e-3);
    });
  },
);
