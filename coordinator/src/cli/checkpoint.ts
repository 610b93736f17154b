import { createHash } from "node:crypto";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { smallModel, tinyModel } from "../tiny-model/tiny-model.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/**
 * Writes a small Llama with random weights (GGUF, Q4_1; the same bytes for the same seed on every machine) where agents look for weights, and a target for
 * it into the data folder, so that a campaign can run where no weights were brought. What it wins says nothing of a real model.
 */
export function checkpoint({ settings, output }: Invocation, options: { seed?: string }): void {
  const seed = Number(options.seed ?? "1");
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 31)
    throw new CliError(EXIT.badInput, `--seed ${options.seed ?? ""}: a number from 0 to 2147483647`);
  const name = `random-llama-${seed}`;
  const bytes = tinyModel("Q4_1", seed, smallModel);
  const folder = join(settings.cache, "weights");
  const file = join(folder, `${name}.gguf`);
  mkdirSync(folder, { recursive: true });
  // Candidates run as another user.
  writeFileSync(`${file}.${process.pid}`, bytes, { mode: 0o644 });
  renameSync(`${file}.${process.pid}`, file);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const target = join(settings.data, `${name}.yaml`);
  mkdirSync(settings.data, { recursive: true });
  writeFileSync(target, stringify(targetFor(name, sha256)));
  output.answer(
    { v: 1, kind: "checkpoint", file, sha256, target },
    `${file}: sha256 ${sha256}\na campaign on it: vibeserve start ${target}`,
  );
}

const targetFor = (name: string, sha256: string): Record<string, unknown> => ({
  v: 1,
  kind: "target",
  name,
  model: { name, file: `${name}.gguf`, sha256 },
  device: { "vibeserve.dev/device.kind": "cpu" },
  // A token is a character or little more: natural prompts are long.
  workload: {
    arrival: { process: "closed", concurrency: 4 },
    prompt: { distribution: "uniform", min: 256, max: 384 },
    output: { distribution: "uniform", min: 16, max: 32 },
    requests: 24,
  },
  slice: {
    arrival: { process: "closed", concurrency: 4 },
    prompt: { distribution: "uniform", min: 256, max: 320 },
    output: { distribution: "uniform", min: 6, max: 10 },
    requests: 8,
  },
  objective: { name: "output_tokens_per_second", unit: "tok/s", direction: "maximize" },
  accuracy: { class: "exact" },
  seed: "stacks/cpu",
  agent: "playbook",
  budget: { wallS: 300, experiments: 4 },
  baselines: [],
});
