import { spawn } from "node:child_process";
import { killGroup } from "../process/kill-group.ts";

export interface ToolEnd {
  /** Null where it was killed at its deadline. */
  readonly code: number | null;
  /** The last 32 KiB of stdout and stderr together. */
  readonly text: string;
}

const KEPT = 32 * 1024;

/**
 * Runs a tool of the installation (python, pip, a build script) to its end, in a session of its own with the agent's environment, so that pip finds
 * its mirror and proxy. At the deadline, or when the signal aborts, its whole process group is killed; an abort throws the signal's reason. A program that
 * does not exist ends with code 127, as in a shell.
 */
export async function runTool(argv: readonly string[], deadlineMs: number, signal: AbortSignal): Promise<ToolEnd> {
  signal.throwIfAborted();
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], detached: true, cwd: "/" });
  let text = "";
  const keep = (chunk: Buffer): void => void (text = (text + chunk.toString("utf8")).slice(-KEPT));
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  const kill = (): void => killGroup(child.pid);
  const timer = setTimeout(kill, deadlineMs);
  signal.addEventListener("abort", kill);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("close", (status) => resolve(status));
      child.once("error", (error: NodeJS.ErrnoException) => (error.code === "ENOENT" ? resolve(127) : reject(error)));
    });
    signal.throwIfAborted();
    return { code, text };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", kill);
  }
}
