import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { TurnRole } from "@vibeserve/shared";
import type { Asked, Script, ScriptBlock } from "./messages-server.ts";

const ROLES = ["planner", "implementer", "judge", "evaluator"] as const;
const firstLine = (role: TurnRole): string =>
  readFileSync(join(import.meta.dirname, "../../prompts/roles", `${role}.md`), "utf8").split("\n")[0] ?? "";

/** Which role is asked, by the first line of its system text. */
export function roleOf({ body }: Asked): TurnRole {
  const system = JSON.stringify(body.system);
  const role = ROLES.find((r) => system.includes(JSON.stringify(firstLine(r)).slice(1, -1)));
  if (!role) throw new Error(`no role has this system text: ${system.slice(0, 200)}`);
  return role;
}

type Step = Script | ScriptBlock[] | ((asked: Asked) => Script | ScriptBlock[]);

/** A model by script: each role goes through its own list, whatever comes between; then it says that its script is over. */
export function scriptedModel(scripts: Partial<Record<TurnRole, readonly Step[]>>): (asked: Asked) => Script {
  const at = new Map<TurnRole, number>();
  return (asked) => {
    const role = roleOf(asked);
    const n = at.get(role) ?? 0;
    at.set(role, n + 1);
    const step = scripts[role]?.[n];
    if (step === undefined) return { status: 400, type: "invalid_request_error", message: `the ${role}'s script is over` };
    const script = typeof step === "function" ? step(asked) : step;
    return Array.isArray(script) ? { blocks: script } : script;
  };
}

/** A tool's call as a block. */
export const call = (tool: string, input: unknown = {}, id?: string): ScriptBlock => ({ tool, input, ...(id === undefined ? {} : { id }) });

/** A planner's decision with everything in it that its schema asks for. */
export const decision = (d: Record<string, unknown>): Script => ({
  reply: JSON.stringify({
    action: "stop",
    skill: "",
    expectedRatio: 1,
    claim: "it helps",
    falsification: "it does not",
    reason: "no more ideas",
    issue: "",
    parent: "",
    mechanism: "",
    activation: "",
    invariants: [],
    passCriteria: [],
    skills: [],
    edits: [],
    ideas: [],
    ...d,
  }),
});
export const implement = (d: Record<string, unknown> = {}): Script =>
  decision({ action: "implement", expectedRatio: 2, mechanism: "fewer bytes", activation: "a profile shows it", ...d });

export const submit = (d: Record<string, unknown> = {}): ScriptBlock =>
  call("submit", { declared: "ready", summary: "done", evidence: ["seed/linear.cpp:1"], mechanism: "", nextStep: "", ...d });
export const verdict = (v: "pass" | "veto", d: Record<string, unknown> = {}): ScriptBlock[] => [
  call("verdict", { verdict: v, reason: v === "pass" ? "as planned" : "it answers from memory", findings: [], bugs: [], ...d }),
];
export const assess = (d: Record<string, unknown> = {}): ScriptBlock[] => [
  call("assess", { bottleneck: "bytes of the weights", mechanism: "ran", evidence: "linear has 80 %", ideas: [], ...d }),
];
