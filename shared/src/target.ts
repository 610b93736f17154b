import { z } from "zod";
import { ChampionRef, Digest, Id } from "./ids.ts";
import { MAX_DEVICES } from "./device.ts";
import { message } from "./message.ts";
import { METRICS, Metric } from "./metric.ts";
import { ModelFormat, WeightType } from "./model-shape.ts";

const positive = z.number().positive();
const count = z.int().min(1);

/** Length in tokens: fixed, uniform over [min, max], or log-normal (median, sigma of the logarithm) clipped to [min, max]. */
export const Length = z.discriminatedUnion("distribution", [
  z.strictObject({ distribution: z.literal("fixed"), tokens: count }),
  z.strictObject({ distribution: z.literal("uniform"), min: count, max: count }),
  z.strictObject({ distribution: z.literal("lognormal"), median: count, sigma: positive, min: count, max: count }),
]);
export type Length = z.infer<typeof Length>;

/** closed: `concurrency` clients, each sends its next request when the last one ended. poisson: open loop at `ratePerS`. */
export const Arrival = z.discriminatedUnion("process", [
  z.strictObject({ process: z.literal("closed"), concurrency: count }),
  z.strictObject({ process: z.literal("poisson"), ratePerS: positive }),
]);

export const Workload = z.strictObject({
  arrival: Arrival,
  /** Of the whole prompt; with `sharedPrefix`, of what follows it. */
  prompt: Length,
  output: Length,
  /** Requests in one run of one arm. */
  requests: count,
  /** Every prompt of a run begins with the same `tokens`; warm: one unscored request has filled the caches before. */
  sharedPrefix: z.strictObject({ tokens: count, warm: z.boolean() }).optional(),
  /** Requests carry OpenAI's `prediction`: the text that was given to be edited, or the reference's own answer with one change per ~`changePer` tokens. */
  prediction: z
    .discriminatedUnion("source", [
      z.strictObject({ source: z.literal("given-text") }),
      z.strictObject({ source: z.literal("reference-answer"), changePer: count }),
    ])
    .optional(),
  /** Requests carry a `response_format` with a JSON schema of this set, and an answer must be valid against it. */
  jsonSchemas: z.string().min(1).optional(),
  /** Prompts come from this named data set instead of being made afresh. */
  prompts: z.string().min(1).optional(),
});
export type Workload = z.infer<typeof Workload>;

/** Clients of a workload at once; an open loop, which names none, is taken for so many. */
export const clientsOf = ({ arrival }: Pick<Workload, "arrival">): number => (arrival.process === "closed" ? arrival.concurrency : 8);

export const Budget = z.strictObject({
  /** Wall time of the campaign in seconds. */
  wallS: positive,
  experiments: count.default(40),
  usd: z.number().min(0).default(0),
  /** Of models: tokens in, out, read from and written to the cache, and turns that were or may have been billed. Absent: no such cap. */
  tokens: count.optional(),
  turns: count.optional(),
  /** Seconds that agents work on the campaign's jobs, builds included; it ends the search as wallS does. Absent: no such cap. */
  deviceS: positive.optional(),
});

export const Schedule = z.strictObject({
  /** Share of a pool's device-time among campaigns of the same priority. */
  weight: positive.max(1000).default(1),
  /** Higher goes first; the others still get a start now and then. */
  priority: z.int().min(-100).max(100).default(0),
  /** Seconds from its submission in which it should end: near it, it goes before its equals. */
  deadlineS: positive.optional(),
});

/** Who thinks: the playbook, without a model; models behind an API; a coding CLI. */
export const AgentKind = z.enum(["playbook", "anthropic", "openai-compatible", "command"]);
export type AgentKind = z.infer<typeof AgentKind>;

/** Engines that there are recipes for: stacks/baselines. */
export const Engine = z.enum([
  "openvino-genai",
  "llama.cpp",
  "llama.cpp-cuda",
  "llama.cpp-rocm",
  "llama.cpp-metal",
  "vllm",
  "vllm-rocm",
  "sglang",
  "mlx-lm",
]);

/** `sha256` of a checkpoint that nobody here has read yet: such a target can be checked, and not run. */
export const UNKNOWN_DIGEST = "unknown";

const TargetModel = z.strictObject({
  name: z.string().min(1),
  /** File or folder in the agent's cache of weights. */
  file: z.string().min(1),
  /** Of the file; for a folder `folderDigest` over its files. */
  sha256: z.string().refine((d) => d === UNKNOWN_DIGEST || Digest.safeParse(d).success, `must be a sha256 in hex, or "${UNKNOWN_DIGEST}"`),
  /** gguf (default): one file. hf: a folder with config.json, tokenizer.json and *.safetensors. */
  format: ModelFormat.optional(),
});

/** What `vibeserve validate` needs to work out offline whether the model fits the device. */
export const Fit = z.strictObject({
  /** Name of targets/models/<shape>.json: the checkpoint's config.json. */
  shape: z.string().regex(/^[a-z0-9.-]+$/, "must be lower-case letters, digits, '.' or '-'"),
  weights: WeightType,
  /** Memory that a stack may use on the device, on each of them where there are several, MiB. */
  deviceMiB: count,
  /** A second, smaller model that drafts. */
  draft: z.strictObject({ shape: z.string().regex(/^[a-z0-9.-]+$/), weights: WeightType }).optional(),
});

export const Target = message("target", {
  name: Id,
  model: TargetModel,
  /** Labels that an agent must have, as probed. Keys of the label vocabulary; values compared as strings. */
  device: z.record(z.string(), z.string()),
  /** Devices of one machine and one pool that a candidate serves on together, as one. Absent: 1. More than 16 no machine has had that this was made for. */
  deviceCount: z.int().min(1).max(MAX_DEVICES).optional(),
  workload: Workload,
  /** Further arrivals that a published figure names. The search runs at workload.arrival; these are not measured yet. */
  loads: z.array(Arrival).min(1).optional(),
  /** A smaller workload of the same concurrency on which even the seed finishes in about 15 s: the direct comparison with the seed. */
  slice: Workload,
  objective: Metric,
  accuracy: z.strictObject({
    class: z.enum(["exact", "lossy"]),
    /** What the evaluator's reference takes: precision, where it computes, its memory there, and the time in which it scores a campaign's hidden positions. */
    reference: z
      .strictObject({ type: z.enum(["float32", "bfloat16"]), place: z.enum(["device", "host"]), memGiB: positive, minutes: positive })
      .optional(),
  }),
  /** Folder of the seed stack, relative to the installation. */
  seed: z.string().min(1),
  /**
   * Who plans, writes, judges and evaluates: the playbook, without a model; a model behind Anthropic's Messages API or a chat-completions endpoint; or a coding
   * CLI; or several over one backlog. All but the playbook need budget.usd, and a key where the coordinator runs.
   */
  agent: z.enum([...AgentKind.options, "portfolio"]),
  /** The members of agent "portfolio", in the order in which each is tried first. */
  portfolio: z.array(AgentKind).min(2).optional(),
  /** none: no shipped binding is offered, so that every line beyond the seed is written by the agent. Default shipped. */
  bindings: z.enum(["shipped", "none"]).optional(),
  budget: Budget,
  /** Its campaigns' claim on devices among all campaigns'. Absent: weight 1, priority 0, no deadline. */
  schedule: Schedule.optional(),
  baselines: z.array(Engine),
  fits: Fit.optional(),
  /** false: never run on the device that it names; every figure in it is a calculation. Absent: it was. */
  verified: z.literal(false).optional(),
});
export type Target = z.infer<typeof Target>;

/** How many devices, as what is made for the target says it: nothing where it is one. */
export const countOf = ({ deviceCount = 1 }: Pick<Target, "deviceCount">): { deviceCount?: number } =>
  deviceCount > 1 ? { deviceCount } : {};

/** Why a champion is tested again. schedule: nothing has changed. */
export const RequalifyCause = z.enum(["driver", "toolchain", "model", "workload", "schedule"]);
export type RequalifyCause = z.infer<typeof RequalifyCause>;

/**
 * Makes a campaign one that searches nothing: it puts given champions to the test on its target, each by its very tree. matrix: all of them, each against the
 * seed. requalify: in this order, until one leads; it is crowned by the rules of any crowning.
 */
export const Trial = z.strictObject({
  purpose: z.enum(["matrix", "requalify"]),
  because: RequalifyCause.nullable(),
  champions: z.array(ChampionRef).min(1).max(32),
});
export type Trial = z.infer<typeof Trial>;
/**
 * What this target needs and no part of VibeServe does yet, a line each; empty: it can be run. Such a target is refused when it is submitted, since what a
 * campaign measured would not be what its target says.
 */
export function notRunnableYet(t: Target): string[] {
  const why: string[] = [];
  if (t.model.sha256 === UNKNOWN_DIGEST)
    why.push(`model.sha256: nobody has stated the digest; "vibeserve validate FILE --checkpoint DIR" prints it for your copy`);
  const lacks = {
    sharedPrefix: "the load generator makes no shared prefix",
    prediction: "the load generator sends no prediction",
    jsonSchemas: "the load generator sends no response_format and checks no schema",
    prompts: "the load generator reads no data set",
  } as const;
  for (const [key, what] of Object.entries(lacks) as [keyof typeof lacks, string][])
    if (t.workload[key] !== undefined || t.slice[key] !== undefined) why.push(`workload.${key}: ${what}`);
  return why;
}

/** What was chosen for one campaign beside its target. */
export const CampaignOptions = z.strictObject({
  baselines: z.array(z.string()),
  /** What a person types to run the same campaign again, for reports; null: whoever submitted it did not say. */
  repeat: z.string().nullable(),
  trial: Trial.optional(),
});
export type CampaignOptions = z.infer<typeof CampaignOptions>;

/** Problems that the types can't state: [path, message]. */
export function targetProblems(t: Target): [path: string[], message: string][] {
  const problems: [string[], string][] = [];
  if ((t.agent === "portfolio") !== (t.portfolio !== undefined))
    problems.push([["portfolio"], `agent "portfolio" and its members belong together; members: ${AgentKind.options.join(", ")}`]);
  if (new Set(t.portfolio).size !== (t.portfolio ?? []).length) problems.push([["portfolio"], "names a member twice"]);
  const known = Object.values(METRICS).find((m) => m.name === t.objective.name);
  if (!known) problems.push([["objective", "name"], `"${t.objective.name}" is not a metric; allowed: ${Object.keys(METRICS).join(", ")}`]);
  else {
    if (known.unit !== t.objective.unit)
      problems.push([["objective", "unit"], `"${t.objective.unit}" is not the unit of ${known.name}; allowed: ${known.unit}`]);
    if (known.direction !== t.objective.direction)
      problems.push([["objective", "direction"], `${known.name} is to be ${known.direction}d, not ${t.objective.direction}d`]);
  }
  for (const [where, w] of [
    ["workload", t.workload],
    ["slice", t.slice],
  ] as const)
    for (const key of ["prompt", "output"] as const) {
      const l = w[key];
      if (l.distribution !== "fixed" && l.min > l.max) problems.push([[where, key, "min"], `min ${l.min} is over max ${l.max}`]);
    }
  return problems;
}
