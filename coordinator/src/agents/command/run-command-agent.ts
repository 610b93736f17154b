import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TurnUsage } from "@vibeserve/shared";
import { plain } from "../prompt.ts";
import type { ToolSpec } from "../conversation.ts";
import { ETC_FILES, INSIDE, sandboxArgv, type AgentSandbox } from "./agent-sandbox.ts";
import { findInstallation } from "./installation.ts";
import { clean, readPrinted, type Printed } from "./printed.ts";
import { startProxy, type Totals } from "./proxy.ts";
import { fillSlots, type Recipe, type Slots } from "./recipe.ts";
import { runSandboxed, type Ended } from "./sandboxed-process.ts";
import type { Purse } from "./spending.ts";
import { toolServer, type CallTool } from "./tool-server.ts";

/** One experiment for a coding CLI to carry out. */
export interface CommandTask {
  recipe: Recipe;
  model: string;
  /** The experiment's worktree, the only folder that it can change. */
  folder: string;
  prompt: string;
  tools: readonly ToolSpec[];
  call: CallTool;
  /** A call of a tool that rejected, and the like: faults of ours, not of the CLI. */
  onError: (error: unknown) => void;
  /** Of the provider; never seen by the CLI. null: it wants none. */
  credential: string | null;
  /** null: the recipe's. */
  baseUrl: string | null;
  purse: Purse;
  wallMs: number;
  /** Default 8 GiB: the CLIs take up to 1, the rest is for what they run. */
  memBytes?: number;
  signal: AbortSignal;
  /** What it prints as it prints it, made safe for a terminal. Untrusted. */
  onOutput: (text: string) => void;
  /** From locateBubblewrap(). */
  sandbox: AgentSandbox;
  /** Where the CLI is looked for. */
  path: string;
}

/** unpaid: the purse refused a request. bad-key: the provider refused the credential. The message is for people. */
export type CommandFailure =
  "not-installed" | "no-sandbox" | "timed-out" | "aborted" | "out-of-memory" | "unpaid" | "bad-key" | "provider" | "crashed";

export interface CommandRun {
  /** null: killed, or never started. */
  exit: number | null;
  timedOut: boolean;
  /** As the proxy metered it: what counts. */
  metered: Totals | null;
  /** As the CLI itself says. */
  usage: TurnUsage | null;
  costUsd: number | null;
  finalText: string;
}

export type CommandOutcome = CommandRun & ({ status: "ended" } | { status: "failed"; code: CommandFailure; message: string });

const NOT_RUN: CommandRun = { exit: null, timedOut: false, metered: null, usage: null, costUsd: null, finalText: "" };
/** In the sandbox's own network, so it is always free. */
const PORT = 7700;
/** Stands where CLIs insist on a key; the proxy takes it out. */
const PLACEHOLDER_KEY = "sk-placeholder-the-proxy-has-the-key";
const DEFAULT_MEM_BYTES = 8 * 2 ** 30;
/** Of stdout, from its end; a result with all its text is far below. */
const KEPT_CHARACTERS = 8_000_000;
/** Nothing that needs a quote in JSON, TOML or YAML. */
const MODEL = /^[A-Za-z0-9._:/@-]{1,128}$/;

/**
 * Runs a coding CLI in the agent sandbox until it ends, at the latest at its wall limit, and returns when nothing of it is left: no process, no request
 * that is not settled, no call of a tool. What it made is in the
 * worktree; what it says of itself is untrusted. Rejects only for faults of this machine (a socket, a survivor of SIGKILL) and TypeError for a task that
 * makes no sense: whatever the CLI, its provider or an abort does is a value.
 */
export async function runCommandAgent(task: CommandTask): Promise<CommandOutcome> {
  const { recipe, sandbox } = task;
  const failed = (code: CommandFailure, message: string): CommandOutcome => ({ ...NOT_RUN, status: "failed", code, message });
  if (!MODEL.test(task.model)) throw new TypeError(`${JSON.stringify(task.model)} is no model's name`);
  if (task.signal.aborted) return failed("aborted", "it was called off before it began");
  if ("refused" in sandbox) return failed("no-sandbox", sandbox.refused);
  const installation = findInstallation(recipe.program, task.path, recipe.folders);
  if (installation === null)
    return failed("not-installed", `${recipe.program} is not installed (PATH ${task.path}); install it: ${recipe.install}`);

  const baseUrl = task.baseUrl ?? recipe.api.baseUrl;
  const run = mkdtempSync(join(realpathSync(tmpdir()), "vs-cli-"));
  try {
    const slots = slotsOf(task, baseUrl);
    const filled = (o: Readonly<Record<string, string>>) =>
      Object.fromEntries(Object.entries(o).map(([k, v]) => [fillSlots(k, slots), fillSlots(v, slots)]));
    const plan = {
      files: filled(recipe.files),
      argv: [installation.program, ...recipe.argv.map((text) => fillSlots(text, slots))],
      ...{ cwd: INSIDE.worktree, port: PORT, socket: `${INSIDE.run}/proxy.sock` },
      stdin: recipe.stdin === "prompt" ? slots.PROMPT_FILE : "/dev/null",
    };
    writeFileSync(join(run, "plan.json"), JSON.stringify(plan));
    writeFileSync(join(run, "prompt.md"), task.prompt);
    mkdirSync(join(run, "etc"));
    for (const [name, text] of Object.entries(ETC_FILES)) writeFileSync(join(run, "etc", name), text);
    let stdout = "";
    let stderr = "";
    const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    const argv = sandboxArgv({
      ...{ bwrap: sandbox.bwrap, worktree: task.folder, run },
      ...{ installation: installation.folders, env: filled(recipe.env) },
    });
    const limits = { wallMs: task.wallMs, memBytes: task.memBytes ?? DEFAULT_MEM_BYTES };
    let ended: Ended;
    let totals: Totals;
    {
      await using proxy = await startProxy({
        socketPath: join(run, "proxy.sock"),
        ...{ baseUrl, api: recipe.api, credential: task.credential, purse: task.purse },
        hosts: [`127.0.0.1:${PORT}`, `localhost:${PORT}`],
      });
      await using _tools = await toolServer(join(run, "tools.sock"), task.tools, task.call, task.onError);
      totals = proxy.totals;
      ended = await runSandboxed(argv, limits, task.signal, (chunk, from) => {
        const text = decoders[from].decode(chunk, { stream: true });
        if (from === "stdout") stdout = (stdout + text).slice(-KEPT_CHARACTERS);
        else stderr = (stderr + text).slice(-65_536);
        task.onOutput(clean(text));
      });
    }
    const printed = readPrinted(recipe.output, stdout);
    const outcome: CommandRun = { exit: ended.exit, timedOut: ended.by === "wall", metered: totals, ...printed };
    const failure = failureOf(task, ended, totals, printed, stderr);
    return failure === null ? { ...outcome, status: "ended" } : { ...outcome, status: "failed", ...failure };
  } finally {
    rmSync(run, { recursive: true, force: true });
  }
}

function slotsOf(task: CommandTask, baseUrl: string): Slots {
  const path = new URL(baseUrl).pathname.replace(/\/$/, "");
  return {
    PROMPT: task.prompt,
    PROMPT_FILE: `${INSIDE.run}/prompt.md`,
    MODEL: task.model,
    WORKTREE: INSIDE.worktree,
    HOME: INSIDE.home,
    BASE_URL: `http://127.0.0.1:${PORT}${path}`,
    KEY: PLACEHOLDER_KEY,
    NODE: INSIDE.node,
    MCP_SERVER: INSIDE.mcp,
    MCP_SOCKET: `${INSIDE.run}/tools.sock`,
    WALL_MS: String(task.wallMs),
    WALL_S: String(Math.ceil(task.wallMs / 1000)),
  };
}

/** null: it ended well. Where several things went wrong, the one that a person can do something about. */
function failureOf(
  { recipe, wallMs, memBytes }: CommandTask,
  ended: Ended,
  { unpaid, lastError }: Totals,
  printed: Printed,
  stderr: string,
): { code: CommandFailure; message: string } | null {
  const name = recipe.program;
  const words = plain(clean(stderr).trim().split("\n").slice(-5).join(" ") || printed.finalText).slice(0, 1_000);
  if (ended.by === "signal") return { code: "aborted", message: `${name} was called off` };
  if (!ended.started) return { code: "no-sandbox", message: `the sandbox could not be made: ${words}` };
  if (ended.by === "memory")
    return { code: "out-of-memory", message: `${name} took more than ${memBytes ?? DEFAULT_MEM_BYTES} bytes of memory` };
  if (unpaid !== null && (ended.by === "wall" || ended.exit !== 0)) return { code: "unpaid", message: unpaid };
  if (ended.by === "wall") return { code: "timed-out", message: `${name} was not done after ${wallMs / 1000} s` };
  if (ended.exit === 0) return null;
  if (lastError === 401 || lastError === 403)
    return { code: "bad-key", message: `the provider answered ${lastError} to the key of ${recipe.api.credential}: ${words}` };
  if (lastError !== null) return { code: "provider", message: `the provider answered ${lastError}: ${words}` };
  return { code: "crashed", message: `${name} ended with exit code ${String(ended.exit)}: ${words}` };
}
