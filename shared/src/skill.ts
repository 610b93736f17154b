import { z } from "zod";
import { Id } from "./ids.ts";

export const SEAMS = ["threading", "linear", "attention", "layer", "head", "scheduler"] as const;
export const Seam = z.enum(SEAMS);
export type Seam = z.infer<typeof Seam>;

/** Front matter of prompts/skills/<id>/SKILL.md. */
export const Skill = z.strictObject({
  id: Id,
  title: z.string().min(1),
  summary: z.string().min(1),
  /** Stacks (by folder name under stacks/) that its binding fits. */
  appliesTo: z.array(z.string()).min(1),
  seams: z.array(Seam).min(1),
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
