import { readFileSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { locateBubblewrap } from "../../coordinator/src/agents/command/agent-sandbox.ts";
import { loadRecipes, type Recipe } from "../../coordinator/src/agents/command/recipe.ts";
import { runCommandAgent, type CommandOutcome, type CommandTask } from "../../coordinator/src/agents/command/run-command-agent.ts";
import { purse, type Purse } from "../../coordinator/src/agents/command/spending.ts";
import type { ToolSpec } from "../../coordinator/src/agents/conversation.ts";
import type { Prices } from "../../coordinator/src/agents/prices.ts";

export const ROOT = join(import.meta.dirname, "../..");
const CACHE = process.env["VIBESERVE_CACHE"] ?? join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "vibeserve");
export const SANDBOX = await locateBubblewrap(CACHE);
/** The provider's credential: must be seen by the provider and by nobody else. */
export const CANARY = "sk-canary-7d1f0c";
export const PRICES: Prices = { asOf: new Date(0), models: { "fake-1": { input: 1, output: 10, cacheRead: 0.1, cacheWrite: 2 } } };

const shipped = loadRecipes(ROOT, "/nonexistent").get("claude-code");
if (!shipped) throw new Error("no recipe claude-code");
/** The fake is run by Claude Code's own recipe. */
export const RECIPE: Recipe = { ...shipped, program: "fake-cli.mjs", install: "it lies in test/kit" };

export const TOOLS: ToolSpec[] = [
  {
    name: "build",
    description: "Builds the tree.",
    input: { type: "object", properties: { seam: { type: "string" } }, required: ["seam"] },
  },
];

export type Step = Record<string, unknown>;

export interface Ran {
  outcome: CommandOutcome;
  /** One a step; empty where the CLI did not come to its end. */
  answers: unknown[];
  /** All that it printed. */
  output: string;
}

/** Runs the fake CLI through these steps in `folder`. */
export async function run(folder: string, steps: Step[], more: Partial<CommandTask> = {}): Promise<Ran> {
  let output = "";
  const outcome = await runCommandAgent({
    recipe: RECIPE,
    model: "fake-1",
    folder,
    prompt: JSON.stringify(steps),
    tools: TOOLS,
    call: async () => ({ text: "nobody called this", isError: true }),
    onError: (error) => {
      throw error;
    },
    credential: CANARY,
    baseUrl: null,
    purse: free,
    wallMs: 20_000,
    signal: new AbortController().signal,
    onOutput: (text) => (output += text),
    sandbox: SANDBOX,
    path: join(ROOT, "test/kit"),
    ...more,
  });
  const answers = outcome.status === "ended" ? (JSON.parse(outcome.finalText) as unknown[]) : [];
  return { outcome, answers, output };
}

export const free: Purse = { admit: () => null, settled: () => undefined };
export const dollars = (usd: number) => purse(PRICES, () => usd);

/** Processes of this machine whose argv or environment holds the text. */
export function processesWith(text: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text) || readFileSync(`/proc/${pid}/environ`, "utf8").includes(text);
    } catch {
      return false;
    }
  });
}
