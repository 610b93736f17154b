import { spawn, type ChildProcess } from "node:child_process";
import { constants } from "node:os";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { PLATFORM } from "../platform.ts";
import type { ExitInfo } from "../serve/running-stack.ts";
import { LogRing } from "./log-ring.ts";
import { TICKS_PER_SECOND, type ProcessTable, type ProcStat } from "./process-table.ts";
import { treeMembers, type TreeIdentity } from "./tree-members.ts";

export interface TreeCommand {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** The uid that nothing but this tree runs under; null where there is none. */
  readonly uid: number | null;
  /** "NAME=value", also put into env: marks processes that leave their session. */
  readonly mark: string;
  /** For bubblewrap: fd 3 carries its JSON status (which names its child), fd 4 takes these bytes (a seccomp program). */
  readonly bwrap: { readonly seccomp: Uint8Array } | null;
  /** Where its processes are looked for; absent: this machine's own. */
  readonly processes?: ProcessTable;
  /** Gets all of stdout as it comes. */
  readonly onStdout?: (chunk: Buffer) => void;
}

/** A survivor of KILL: should be impossible but for a process in uninterruptible sleep. A harness fault. */
export class SurvivorError extends Error {
  readonly pids: readonly number[];
  constructor(pids: readonly number[]) {
    super(`processes ${pids.join(", ")} are still there 5 s after SIGKILL`);
    this.name = "SurvivorError";
    this.pids = pids;
  }
}

const GRACE_MS = 2_000;
const KILL_MS = 5_000;
const STOPPED = new Set(["T", "t"]);

/**
 * A process, everything that descends from it, and what they print. Own session, so that no terminal and no stray group signal reaches the agent.
 * 1. exited settles once, when the root process is gone. 2. stop() returns only when no member is left. 3. memory for the log is fixed.
 */
export class ProcessTree {
  readonly pid: number;
  readonly exited: Promise<ExitInfo>;
  /** What it printed, in the order in which it came; and each stream by itself. */
  readonly log = new LogRing();
  readonly stdout = new LogRing();
  readonly stderr = new LogRing();
  readonly #child: ChildProcess;
  readonly #command: TreeCommand;
  readonly #processes: ProcessTable;
  readonly #startTicks: number;
  readonly #logsClosed: Promise<void>;
  #namespace: string | null = null;
  /** Host pid of the namespace's init. */
  #init: number | null = null;
  #exit: ExitInfo | null = null;
  #stopping: Promise<void> | null = null;

  private constructor(child: ChildProcess, pid: number, command: TreeCommand) {
    this.#child = child;
    this.pid = pid;
    this.#command = command;
    this.#processes = command.processes ?? PLATFORM.processes;
    this.#startTicks = this.#processes.stat(pid)?.startTicks ?? 0;
    for (const [stream, ring] of [
      [child.stdout, this.stdout],
      [child.stderr, this.stderr],
    ] as const) {
      stream?.on("data", (chunk: Buffer) => {
        this.log.write(chunk);
        ring.write(chunk);
        if (stream === child.stdout) command.onStdout?.(chunk);
      });
      stream?.on("error", () => undefined);
    }
    this.#logsClosed = new Promise((resolve) => {
      child.once("close", () => resolve());
    });
    this.exited = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        this.#exit = exitInfo(code, signal);
        resolve(this.#exit);
      });
    });
    if (command.bwrap) this.#followBwrap(command.bwrap.seccomp);
  }

  /** Rejects if the program can't be started at all (a harness fault: the program is ours). */
  static async start(command: TreeCommand): Promise<ProcessTree> {
    const [file, ...args] = command.argv;
    if (file === undefined) throw new TypeError("empty argv");
    const child = spawn(file, args, {
      cwd: command.cwd,
      env: { ...command.env, ...Object.fromEntries([splitMark(command.mark)]) },
      detached: true,
      stdio: ["ignore", "pipe", "pipe", ...(command.bwrap ? (["pipe", "pipe"] as const) : [])],
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    if (child.pid === undefined) throw new Error(`${file} has no pid`);
    return new ProcessTree(child, child.pid, command);
  }

  /** After exit: all that it printed has been read, or 500 ms have passed (a child that lives on may hold the pipe). */
  async logEnded(): Promise<void> {
    await Promise.race([this.#logsClosed, sleep(500, undefined, { ref: false })]);
  }

  get exit(): ExitInfo | null {
    return this.#exit;
  }

  members(): ProcStat[] {
    return treeMembers(this.#identity(), this.#processes);
  }

  /** Throws when nothing of the tree is left. Its own bubblewrap is included; that costs milliseconds at start and nothing later. */
  cpuSeconds(): number {
    const members = this.#exit === null ? this.members() : [];
    if (members.length === 0) throw new Error("the process tree is gone");
    return members.reduce((sum, p) => sum + p.ownTicks + p.childTicks, 0) / TICKS_PER_SECOND;
  }

  rssBytes(): number {
    return this.members().reduce((sum, p) => sum + p.rssBytes, 0);
  }

  async pause(): Promise<void> {
    // Repeated, since a process may fork between the look and the signal.
    const ends = Date.now() + KILL_MS;
    for (;;) {
      const running = this.members().filter((p) => !STOPPED.has(p.state));
      if (running.length === 0) return;
      if (Date.now() > ends) throw new SurvivorError(running.map((p) => p.pid));
      for (const p of running) send(p.pid, "SIGSTOP");
      await sleep(1);
    }
  }

  async resume(): Promise<void> {
    const ends = Date.now() + KILL_MS;
    for (;;) {
      const stopped = this.members().filter((p) => STOPPED.has(p.state));
      if (stopped.length === 0) return;
      if (Date.now() > ends) throw new SurvivorError(stopped.map((p) => p.pid));
      for (const p of stopped) send(p.pid, "SIGCONT");
      await sleep(1);
    }
  }

  /** How the command ended, when nothing of the tree is left, also of what outlived it; the signal ends it before its time. Throws SurvivorError. */
  async untilEnded(signal: AbortSignal): Promise<ExitInfo> {
    // The last stop() below reports a survivor; this one only must not be unhandled.
    const abort = (): void => void this.stop(0).catch(() => undefined);
    signal.addEventListener("abort", abort, { once: true });
    try {
      if (signal.aborted) abort();
      return await this.exited;
    } finally {
      signal.removeEventListener("abort", abort);
      await this.stop(0);
    }
  }

  stop(graceMs = GRACE_MS): Promise<void> {
    this.#stopping ??= this.#stop(graceMs);
    return this.#stopping;
  }

  async #stop(graceMs: number): Promise<void> {
    if (graceMs > 0 && this.#exit === null) {
      // bubblewrap and its init stay, or their death would take the candidate's chance to end by itself.
      const keep = new Set(this.#command.bwrap ? [this.pid, this.#init ?? this.pid] : []);
      for (const p of this.members()) {
        if (keep.has(p.pid)) continue;
        send(p.pid, "SIGTERM");
        send(p.pid, "SIGCONT");
      }
      for (const pid of keep) send(pid, "SIGCONT");
      await Promise.race([this.exited, sleep(graceMs, undefined, { ref: false })]);
    }
    const ends = Date.now() + KILL_MS;
    for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
      const left = this.members();
      if (left.length === 0) break;
      if (Date.now() > ends) throw new SurvivorError(left.map((p) => p.pid));
      for (const p of left) send(p.pid, "SIGKILL");
      await sleep(waitMs);
    }
    await this.exited;
    await this.logEnded();
    this.#child.stdout?.destroy();
    this.#child.stderr?.destroy();
  }

  #identity(): TreeIdentity {
    return {
      rootPid: this.pid,
      rootStartTicks: this.#startTicks,
      pidNamespace: this.#namespace,
      uid: this.#command.uid,
      mark: this.#command.mark,
    };
  }

  #followBwrap(seccomp: Uint8Array): void {
    const status = this.#child.stdio[3] as Readable;
    const program = this.#child.stdio[4] as Writable;
    program.on("error", () => undefined);
    program.end(seccomp);
    let text = "";
    status.on("error", () => undefined);
    status.on("data", (chunk: Buffer) => {
      if (text.length > 4096) return;
      text += chunk.toString("utf8");
      const pid = /"child-pid":\s*(\d+)/.exec(text)?.[1];
      if (pid === undefined || this.#init !== null) return;
      this.#init = Number(pid);
      const inode = /"pid-namespace":\s*(\d+)/.exec(text)?.[1];
      this.#namespace = inode === undefined ? this.#processes.namespaceOf(this.#init) : `pid:[${inode}]`;
    });
  }
}

function splitMark(mark: string): [string, string] {
  const at = mark.indexOf("=");
  return [mark.slice(0, at), mark.slice(at + 1)];
}

function send(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Gone already: that is what a signal was to bring about, or no longer matters.
  }
}

function exitInfo(code: number | null, signalName: NodeJS.Signals | null): ExitInfo {
  if (code !== null && code > 128) {
    const byShell = Object.entries(constants.signals).find(([, n]) => n === code - 128)?.[0];
    if (byShell !== undefined) return { code, signal: byShell as NodeJS.Signals, at: Date.now() };
  }
  return { code, signal: signalName, at: Date.now() };
}
