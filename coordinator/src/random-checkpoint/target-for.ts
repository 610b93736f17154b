import { fitOf, parameters, type Device, type ModelShape, type Workload } from "@vibeserve/shared";

export type Kind = Device["kind"];

const workload: Workload = {
  arrival: { process: "closed", concurrency: 16 },
  prompt: { distribution: "uniform", min: 64, max: 128 },
  output: { distribution: "uniform", min: 64, max: 128 },
  requests: 128,
};

/** Tokens that the reference scores for a campaign: the hidden positions that are kept ready, and what comes before them. */
const SCORED_TOKENS = 12_000;
/** Float32 operations a second that transformers reaches, reckoned low, and bytes of weights a second that it loads. */
const SPEED = { device: 1e13, host: 1e11, load: 5e8 };

/** A target for a checkpoint of random weights. `like`: name of the shape in targets/models that it has; null: it has no such shape, so nobody reckons whether it fits. */
export function targetFor(name: string, sha256: string, shape: ModelShape, kind: Kind, like: string | null): Record<string, unknown> {
  const place = kind === "cpu" ? "host" : "device";
  const bytes = 4 * parameters(shape);
  const seconds = (2 * parameters(shape) * SCORED_TOKENS) / SPEED[place] + bytes / SPEED.load;
  // The smallest memory of a device, by doubling, in which it fits.
  let deviceMiB = 16_384;
  while (!fitOf(shape, { weights: "bfloat16", deviceMiB }, workload).ok) deviceMiB *= 2;
  return {
    v: 1,
    kind: "target",
    name: name.replaceAll(".", "-"),
    model: { name, file: name, format: "hf", sha256 },
    ...(like !== null && { fits: { shape: like, weights: "bfloat16", deviceMiB } }),
    ...(kind !== "cpu" && { verified: false }),
    device: { "vibeserve.dev/device.kind": kind },
    workload,
    slice: { ...workload, output: { distribution: "uniform", min: 16, max: 32 }, requests: 48 },
    objective: { name: "output_tokens_per_second", unit: "tok/s", direction: "maximize" },
    // 4 GiB beside the weights are what gpu-agent/reference/hf_reference.py spares.
    accuracy: {
      class: "exact",
      reference: { type: "float32", place, memGiB: Math.ceil(bytes / 2 ** 30 + 4), minutes: Math.ceil(seconds / 60) },
    },
    seed: "stacks/torch",
    agent: "playbook",
    budget: { wallS: 600, experiments: 8 },
    baselines: [],
  };
}
