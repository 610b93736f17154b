import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { expect } from "vitest";

const MAIN = join(import.meta.dirname, "../../gpu-agent/src/main.ts");

/** A gpu-agent as its own process. */
export interface AgentProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** What it has logged so far. */
  log(): string;
  /** Resolves once its log matches; fails after a minute. */
  said(pattern: RegExp): Promise<void>;
  kill(signal: NodeJS.Signals): void;
}

export interface AgentStart {
  /** Flags of node. */
  nodeFlags?: readonly string[];
  /** A command line that runs it, such as one that enters a namespace. */
  within?: readonly string[];
}

/** Starts it with these arguments. */
export function agentProcess(args: readonly string[], { nodeFlags = [], within = [] }: AgentStart = {}): AgentProcess {
  const [file = "", ...argv] = [...within, process.execPath, ...nodeFlags, MAIN, ...args];
  // The channel closes when a test is given up: then the agent drains, and nothing is left running.
  const child = spawn(file, argv, { stdio: ["ignore", "ignore", "pipe", "ipc"] });
  child.channel?.unref();
  let log = "";
  child.stderr?.on("data", (chunk: Buffer) => (log += chunk.toString()));
  return {
    child,
    pid: child.pid ?? 0,
    exited: new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal }))),
    log: () => log,
    said: async (pattern) => await expect.poll(() => log, { timeout: 60_000 }).toMatch(pattern),
    kill: (signal) => child.kill(signal),
  };
}

/** One that comes in, or came in, by a line: its folder is its own, its cache in it. */
export const joiningAgent = (agentId: string, dir: string, flags: readonly string[], start?: AgentStart): AgentProcess =>
  agentProcess(["--data", dir, "--cache", join(dir, "cache"), "--agent-id", agentId, ...flags], start);
