import type { SandboxKind } from "@vibeserve/shared";

/** How a server's process ended. `signal` is set where a signal ended it, also when the sandbox reports that as 128 + n. */
export interface ExitInfo {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Milliseconds since the Unix epoch. */
  readonly at: number;
}

/**
 * A candidate (or a baseline's server) that answered GET /health and can be loaded over its unix socket. Whoever started it must stop it; the agent's
 * death does too. Its log is untrusted and bounded.
 */
export interface RunningStack {
  /** Path on this machine of the unix socket that it serves HTTP on. */
  readonly socketPath: string;
  /** Settles when the server's process is gone, for whatever reason; never rejects. */
  readonly exited: Promise<ExitInfo>;
  /** How long it took until it answered, where its stack.json names a warm-up. */
  readonly warmupS?: number;
  /** Its processes, as this machine numbers them; the sandbox's own are among them. */
  pids(): number[];
  /** CPU seconds (user + system) of the whole process tree so far, children that have ended included. Throws if the tree is gone. */
  cpuSeconds(): Promise<number>;
  /** SIGSTOP to the whole tree, until each process is seen stopped: the idle arm of a comparison must not disturb. */
  pause(): Promise<void>;
  /** SIGCONT to the whole tree. */
  resume(): Promise<void>;
  /** TERM, then KILL after a grace time of 2 s, then verify that no process of the tree is left. Idempotent. Throws only if something survived. */
  stop(): Promise<void>;
  /** Last lines of stdout and stderr, at most 8,000 characters, control characters and terminal escapes removed. */
  logTail(): string;
  readonly sandbox: SandboxKind;
}

/**
 * A server that did not come up or did not behave: the candidate's own failure (I8). Codes: `bad-manifest` (stack.json does not say how to serve it),
 * `exited-at-start`, `health-timeout` (alive, but no 200 from /health in time), `memory-limit`, `died-under-load` (thrown by those who load it).
 */
export class StackError extends Error {
  readonly code: string;
  readonly logTail: string;
  constructor(code: string, message: string, logTail: string) {
    super(message);
    this.name = "StackError";
    this.code = code;
    this.logTail = logTail;
  }
}
