import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Device, ModelShape, StackManifest } from "@vibeserve/shared";
import { stringify } from "yaml";
import { commandLine } from "../command-line.ts";
import type { Settings } from "../config.ts";
import { targetFor as folderTarget } from "../random-checkpoint/target-for.ts";
import { writeRandomCheckpoint } from "../random-checkpoint/write-checkpoint.ts";
import { smallModel, tinyModel } from "../tiny-model/tiny-model.ts";
import { shapes } from "./check-target.ts";
import { localContext } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

export interface CheckpointOptions {
  seed?: string;
  like?: string;
  layers?: string;
  device?: string;
}

/**
 * Writes a model with random weights where agents look for weights, and a target for it into the data folder, so that a campaign can run where no weights were
 * brought: a small Llama (GGUF, Q4_1) for the CPU, or with `like` a Hugging Face folder of the shape of targets/models/<like>.json. The same bytes for the same
 * seed on every machine. What a campaign wins says nothing of a real model's answers.
 */
export function checkpoint({ settings, output }: Invocation, options: CheckpointOptions): void {
  const seed = whole("--seed", options.seed ?? "1", 0, 2 ** 31 - 1);
  if (options.like === undefined)
    for (const name of ["layers", "device"] as const)
      if (options[name] !== undefined) throw new CliError(EXIT.badInput, `--${name} ${options[name]}: only with --like`);
  const made = options.like === undefined ? ggufOf(settings, seed) : folderLike(settings, options.like, seed, options);
  const target = join(settings.data, `${String(made.target["name"])}.yaml`);
  // As the coordinator keeps it: others may not look into it.
  mkdirSync(settings.data, { recursive: true, mode: 0o700 });
  writeFileSync(target, stringify(made.target, { aliasDuplicateObjects: false }));
  const { file, sha256 } = made;
  const verb = settings.nats || existsSync(localContext(settings)) ? "submit" : "start";
  output.answer(
    { v: 1, kind: "checkpoint", file, sha256, target },
    `${file}: sha256 ${sha256}\na campaign on it: ${commandLine(verb, [target])}`,
  );
}

interface Made {
  readonly file: string;
  readonly sha256: string;
  readonly target: Record<string, unknown>;
}

function folderLike(settings: Settings, like: string, seed: number, { layers, device = "nvidia" }: CheckpointOptions): Made {
  const torch: unknown = JSON.parse(readFileSync(join(settings.root, "stacks", "torch", "stack.json"), "utf8"));
  const families = StackManifest.parse(torch).loads?.families ?? [];
  const statedOf = (name: string) =>
    JSON.parse(readFileSync(join(settings.root, "targets", "models", `${name}.json`), "utf8")) as Record<string, unknown>;
  const typeOf = (name: string) => ModelShape.parse(statedOf(name)).type;
  const names = shapes(settings.root);
  const made = names.filter((name) => families.includes(typeOf(name)));
  if (!made.includes(like)) {
    const why = names.includes(like) ? `stacks/torch does not load ${typeOf(like)}` : "no such shape";
    throw new CliError(EXIT.badInput, `--like ${like}: ${why}; there are: ${made.join(", ")}`);
  }
  const kind = Device.shape.kind.safeParse(device);
  if (!kind.success) throw new CliError(EXIT.badInput, `--device ${device}: allowed are ${Device.shape.kind.options.join(", ")}`);
  const stated = statedOf(like);
  const config = layers === undefined ? stated : { ...stated, num_hidden_layers: whole("--layers", layers, 1, 1000) };
  const shape = ModelShape.parse(config);
  const name = `random-${like}${layers === undefined ? "" : `-${shape.layers.full}-layers`}-${seed}`;
  const file = join(settings.cache, "weights", name);
  const sha256 = writeRandomCheckpoint(file, config, seed);
  return { file, sha256, target: folderTarget(name, sha256, shape, kind.data, layers === undefined ? like : null) };
}

function whole(option: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max)
    throw new CliError(EXIT.badInput, `${option} ${text}: a number from ${min} to ${max}`);
  return value;
}

function ggufOf(settings: Settings, seed: number): Made {
  const name = `random-llama-${seed}`;
  const bytes = tinyModel("Q4_1", seed, smallModel);
  const folder = join(settings.cache, "weights");
  const file = join(folder, `${name}.gguf`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${file}.${process.pid}`, bytes);
  // Candidates run as another user, whatever this one's umask is.
  chmodSync(`${file}.${process.pid}`, 0o644);
  renameSync(`${file}.${process.pid}`, file);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { file, sha256, target: ggufTarget(name, sha256) };
}

const ggufTarget = (name: string, sha256: string): Record<string, unknown> => ({
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
