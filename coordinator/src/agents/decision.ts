import { issuesOf } from "@vibeserve/shared";
import { z } from "zod";
import { floorFirst } from "../campaign/rules.ts";
import type { Weighed } from "../playbook/plan.ts";

/** What a planner may say now: all of it is legal, whatever it chooses. */
export interface Choices {
  /** Skills whose shipped binding may be put on top of the leader. */
  options: readonly Weighed[];
  /** Ideas of the backlog that are open. */
  issues: readonly string[];
  /** Checkpoints that an experiment may start from: those that were proven, newest last. */
  parents: readonly string[];
  /** Skills that an implementer may be told to read. */
  skills: readonly string[];
}

/** The JSON schema of a decision. Providers take no bounds in schemas, so those are checked in `parseDecision`. */
export function decisionSchema({ options, issues, parents, skills }: Choices) {
  const actions = ["stop", ...(options.length > 0 ? ["try"] : []), ...(floorFirst(options) ? [] : ["implement"])];
  const oneOf = (ids: readonly string[]) => z.enum(["", ...ids]);
  return z.strictObject({
    action: z.enum(actions as [string, ...string[]]),
    skill: oneOf(options.map((o) => o.skill)),
    expectedRatio: z.number(),
    claim: z.string(),
    falsification: z.string(),
    reason: z.string(),
    issue: oneOf(issues),
    parent: oneOf(parents),
    mechanism: z.string(),
    activation: z.string(),
    invariants: z.array(z.string()),
    passCriteria: z.array(z.string()),
    skills: z.array(z.enum(["", ...skills])),
    edits: z.array(z.strictObject({ issue: oneOf(issues), strategy: z.enum(["available", "parked"]), reason: z.string() })),
    ideas: z.array(z.strictObject({ title: z.string(), mechanism: z.string(), expectedRatio: z.number() })),
  });
}
export type Decision = z.infer<ReturnType<typeof decisionSchema>>;

const isRatio = (n: number): boolean => n > 0 && n < 1_000;

/** The decision, or what is wrong with it in words for the model. */
export function parseDecision(choices: Choices, reply: string): { ok: true; value: Decision } | { ok: false; why: string } {
  let raw: unknown;
  try {
    raw = JSON.parse(reply);
  } catch (error) {
    return { ok: false, why: `not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
  const parsed = decisionSchema(choices).safeParse(raw);
  if (!parsed.success) return { ok: false, why: issuesOf(parsed.error) };
  const d = parsed.data;
  if (d.action === "try" && d.skill === "") return { ok: false, why: 'skill: "try" needs one of the options' };
  if (!isRatio(d.expectedRatio)) return { ok: false, why: `expectedRatio: ${d.expectedRatio} is not a ratio between 0 and 1000` };
  if (d.action === "implement" && d.mechanism.trim() === "") return { ok: false, why: 'mechanism: "implement" needs one' };
  if (d.action === "implement" && d.activation.trim() === "")
    return { ok: false, why: 'activation: "implement" needs the evidence that its mechanism ran' };
  const bad = d.ideas.find((i) => !isRatio(i.expectedRatio) || i.title.trim() === "" || i.mechanism.trim() === "");
  return bad ? { ok: false, why: "ideas: each needs a title, a mechanism and a ratio between 0 and 1000" } : { ok: true, value: d };
}
