import { spawn } from "node:child_process";

/** How a tool that was run to its end came out. `text` is stdout and stderr together, its last 64 KiB. `missing`: there is no such program. */
export type ToolResult =
  { kind: "ended"; code: number; text: string } | { kind: "killed"; reason: string; text: string } | { kind: "missing" };

export interface ToolOptions {
  /** Kills the tool, and everything that it started. */
  signal?: AbortSignal | undefined;
  /** Default 30 s: for questions such as `--version`. Downloads name their own. */
  deadlineMs?: number;
  /** Never the user's working directory for `python3 -m …`, which would import a module from there. */
  cwd?: string;
}

const keptBytes = 64 * 1024;

/**
 * Runs a tool of the set-up in a process group of its own and waits for it. Never rejects for what the tool does; an abort by the
 * caller's signal rejects with its reason, after the group is killed.
 */
export async function runTool(argv: readonly [string, ...string[]], options: ToolOptions = {}): Promise<ToolResult> {
  const { signal, deadlineMs = 30_000, cwd } = options;
  signal?.throwIfAborted();
  const [file, ...args] = argv;
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], detached: true, ...(cwd === undefined ? {} : { cwd }) });
  let text = "";
  const keep = (chunk: Buffer): void => {
    text = (text + chunk.toString("utf8")).slice(-keptBytes);
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    killGroup(child.pid);
  }, deadlineMs);
  const abort = (): void => killGroup(child.pid);
  signal?.addEventListener("abort", abort, { once: true });
  try {
    const result = await new Promise<ToolResult>((resolve, reject) => {
      child.once("error", (error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") resolve({ kind: "missing" });
        else if (error.code === "EACCES") resolve({ kind: "killed", reason: `${file} may not be executed (${error.message})`, text });
        else reject(error);
      });
      child.once("close", (code, by) => {
        if (code !== null) resolve({ kind: "ended", code, text });
        else resolve({ kind: "killed", reason: late ? `no end after ${deadlineMs / 1000} s` : `signal ${by ?? "unknown"}`, text });
      });
    });
    signal?.throwIfAborted();
    return result;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** Why it did not end well: what it said last. Null: it did. */
export function whyFailed(result: ToolResult): string | null {
  if (result.kind === "missing") return "it is not there";
  if (result.kind === "killed") return result.reason;
  return result.code === 0 ? null : result.text.trim().split("\n").at(-1) || `exit code ${result.code}`;
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It ended by itself in between.
  }
}
