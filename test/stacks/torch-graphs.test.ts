import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseJson } from "@vibeserve/shared";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { builtPythonStack, pythonWith } from "../kit/python-stack.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { writeTinyCheckpoint } from "../kit/tiny-checkpoint.ts";

const python = pythonWith("torch", "numpy", "tokenizers", "torch.nn.modules.normalization", "torch.nn.attention");
const withTriton = pythonWith("torch", "numpy", "triton");
const ROOT = join(import.meta.dirname, "../..");

const SLOTS = ["torch-batched-attention", "torch-fused-projections"];
const SCHEDULERS = [
  { module: "scheduler_cuda_graphs", skills: [...SLOTS, "cuda-graph-decode"] },
  { module: "scheduler_ahead", skills: [...SLOTS, "cuda-graph-decode", "async-scheduling"] },
];
const Counts = z.object({ replays: z.number(), captures: z.number(), ahead: z.number(), failed: z.number(), generations: z.number() });

const run = (script: string, args: readonly string[], { command, path } = python!): string =>
  execFileSync(command, [join(import.meta.dirname, "torch", script), ...args], {
    env: { ...process.env, PYTHONPATH: path },
    encoding: "utf8",
  });

describe.skipIf(python === null)("what stacks/torch keeps between steps (skipped where no Python has torch 2.4 and tokenizers)", () => {
  for (const { module, skills } of SCHEDULERS)
    test(`${module} answers as launches do, whatever comes and goes`, { timeout: 300_000 }, async () => {
      using dir = tempDir("graphs");
      const model = join(dir.path, "tiny");
      writeTinyCheckpoint(model);
      // Shorter than the cache grows to, and no power of two.
      const config = join(model, "config.json");
      writeFileSync(
        config,
        JSON.stringify({
          ...z.record(z.string(), z.unknown()).parse(parseJson(readFileSync(config, "utf8"))),
          max_position_embeddings: 1100,
        }),
      );
      await builtPythonStack("torch", python!, dir.path, skills);
      const all = [2, 7, 8].map((seed) =>
        Counts.parse(parseJson(run("graph-history.py", [join(dir.path, "stack"), model, module, String(seed)]))),
      );
      const sum = (of: keyof z.infer<typeof Counts>): number => all.reduce((n, counts) => n + counts[of], 0);
      expect(sum("replays")).toBeGreaterThan(300);
      expect(sum("captures")).toBeGreaterThan(30);
      expect(sum("generations")).toBeGreaterThan(2);
      expect(sum("failed")).toBeGreaterThan(0);
      if (module === "scheduler_ahead") expect(sum("ahead")).toBeGreaterThan(100);
    });

  test("what a request holds is free when it ends, and when its step fails", { timeout: 60_000 }, async () => {
    using dir = tempDir("let-go");
    const model = join(dir.path, "tiny");
    writeTinyCheckpoint(model);
    await builtPythonStack("torch", python!, dir.path, SLOTS);
    expect(run("let-go.py", [join(dir.path, "stack"), model, join(dir.path, "s")])).toBe("ok\n");
  });
});

test.skipIf(withTriton === null)("Triton's products, in its interpreter (skipped where no Python has Triton)", { timeout: 120_000 }, () => {
  expect(run("triton-rows.py", [join(ROOT, "stacks/torch/bindings/linear/triton-rows.py")], withTriton!)).toBe("ok\n");
});
