import { z } from "zod";
import { Device } from "./device.ts";
import { Id } from "./ids.ts";

export const SEAMS = ["threading", "linear", "attention", "layer", "head", "scheduler"] as const;
export const Seam = z.enum(SEAMS);
export type Seam = z.infer<typeof Seam>;

const X86 = [
  "avx2",
  "avx_vnni",
  "avx512f",
  "avx512bw",
  "avx512vl",
  "avx512_vnni",
  "avx512_bf16",
  "avx512_fp16",
  "amx_tile",
  "amx_int8",
  "amx_bf16",
] as const;
const ARM = ["neon", "dotprod", "i8mm", "bf16", "sve", "sve2"] as const;
const GPUS = ["sm_80", "sm_89", "sm_90", "sm_100", "gfx90a", "gfx942", "gfx950", "apple-gpu"] as const;

/** What a skill changes: a seam of a stack, or a part that no shipped stack has as a seam yet. */
export const Area = z.enum([
  ...SEAMS,
  "api",
  "compiler",
  "constrained",
  "diffusion",
  "encoder",
  "graphs",
  "measuring",
  "memory",
  "moe",
  "parallel",
  "prefix-cache",
  "profiling",
  "quantisation",
  "recurrent",
  "sampler",
  "speculation",
]);

/** Where a skill may be of use: each list names alternatives, an empty one leaves it open. */
export const SkillScope = z.strictObject({
  /** Stacks (by folder name under stacks/) that its binding fits. */
  stacks: z.array(Id).default([]),
  devices: z.array(Device.shape.kind).min(1),
  /** ISA bits as probed ("avx2", "amx_bf16", "neon"), or an architecture: "sm_89", "sm_90", "gfx942", "apple-gpu". */
  arch: z.array(z.enum([...X86, ...ARM, ...GPUS])).default([]),
  /** Model families, as they stand in a model's name, lower case. */
  models: z.array(z.string().regex(/^[a-z][a-z0-9-]*$/)).default([]),
  workloads: z.array(z.enum(["chat", "code-edit", "shared-prefix", "json", "speech", "image", "long-context"])).default([]),
});
export type SkillScope = z.infer<typeof SkillScope>;

/** Front matter of prompts/skills/<id>/SKILL.md. */
export const Skill = z.strictObject({
  id: Id,
  title: z.string().min(1).max(80),
  summary: z.string().min(1).max(200),
  appliesTo: SkillScope,
  seams: z.array(Area).min(1),
  /** Path under stacks/<stack>/bindings, such as "linear/q4-int8.cpp"; absent for knowledge without shipped code. */
  binding: z.string().optional(),
  requires: z.strictObject({
    /** ISA bits as probed; each entry is a set of alternatives joined by "|", such as "avx2|neon". */
    isa: z.array(z.string()).default([]),
    skills: z.array(Id).default([]),
    cores: z.int().min(1).default(1),
  }),
  conflicts: z.array(Id).default([]),
  expectedGain: z.strictObject({ metric: z.string(), ratio: z.number().positive(), source: z.string().min(1) }),
  /** How one sees that the mechanism really ran. */
  activation: z.string().min(1),
  failureModes: z.array(z.string()).min(1),
  /** Primary sources: a paper, a vendor's manual, a project's source or documentation, with the version that was read; two at least (the linter says so). */
  sources: z
    .array(z.strictObject({ title: z.string().min(1), url: z.url({ protocol: /^https$/ }), version: z.string().min(1) }))
    .default([]),
});
export type Skill = z.infer<typeof Skill>;

/** One falsifiable idea. `expected.ratio` is challenger over parent, > 1 is better, in the objective's metric. */
export const Hypothesis = z.strictObject({
  claim: z.string().min(1),
  mechanism: z.string().min(1),
  expected: z.strictObject({ metric: z.string(), ratio: z.number().positive() }),
  activation: z.string().min(1),
  falsification: z.string().min(1),
  invariants: z.array(z.string()),
  /** Experiment id whose tree it starts from, or "seed". */
  parent: z.string().min(1),
  skills: z.array(Id),
  passCriteria: z.array(z.string()).min(1),
});
export type Hypothesis = z.infer<typeof Hypothesis>;

/** DESIGN.md's resolutions: what the framework says of a hypothesis. */
export const Resolution = z.enum(["proven", "disproven", "inconclusive", "implementation_failed", "blocked"]);
export type Resolution = z.infer<typeof Resolution>;
