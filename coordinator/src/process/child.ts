import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { Backoff, delay } from "./backoff.ts";
import { identityOf, ownIdentity, type ProcessIdentity } from "./identity.ts";
import type { LockHolder } from "./lock.ts";
import type { EventLogger } from "./log-file.ts";
import { stopProcess } from "./stop.ts";

/**
 * A long-lived process of ours that is started again when it ends by itself.
 *   P1. It leads a session of its own: a terminal's Ctrl-C does not reach it, its end is ordered by us.
 *   P2. It holds an IPC channel to us: when we are killed outright it sees the channel close, and stops by itself.
 *   P3. Its pid file names us as its parent, so that whoever comes after us can tell an orphan from somebody else's process.
 */
export interface ChildSpec {
  name: string;
  command: string;
  args: readonly string[];
  env: NodeJS.ProcessEnv;
  /** Everything it prints. */
  logFile: string;
  /** Null: it keeps a lock file of its own. */
  pidFile: string | null;
  /** Its messages over the channel. */
  onMessage?: (message: unknown) => void;
  log: EventLogger;
}

/** A process that held this long had no trouble starting. */
const STEADY_MS = 30_000;
/** It ended by itself this often within STEADY_MS of its start, in a row: it can't run here, and starting it again won't help. */
const MAX_EARLY_ENDS = 5;

export class SupervisedChild {
  readonly #spec: ChildSpec;
  readonly #backoff = new Backoff(200, 5_000);
  readonly #stop = new AbortController();
  readonly #failed = Promise.withResolvers<never>();
  #current: { process: ChildProcess; identity: ProcessIdentity; startedAt: number; gone: Promise<void> } | null = null;
  #earlyEnds = 0;

  constructor(spec: ChildSpec) {
    this.#spec = spec;
    // Nobody has to ask.
    this.#failed.promise.catch(() => undefined);
  }

  /** Rejects when the process keeps ending soon after its start. Never resolves. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  get pid(): number | null {
    return this.#current?.identity.pid ?? null;
  }

  start(): void {
    const { name, command, args, env, logFile, pidFile, log, onMessage } = this.#spec;
    mkdirSync(dirname(logFile), { recursive: true, mode: 0o700 });
    const output = openSync(logFile, "a", 0o600);
    const child = spawn(command, [...args], { detached: true, stdio: ["ignore", output, output, "ipc"], env });
    closeSync(output);
    const gone = Promise.withResolvers<undefined>();
    child.once("error", (error) => this.#ended(`could not be started: ${error.message}`));
    const identity = identityOf(child.pid ?? 0);
    if (!identity) return;
    this.#current = { process: child, identity, startedAt: Date.now(), gone: gone.promise };
    if (pidFile !== null) {
      const holder: LockHolder = { ...identity, role: name, since: Date.now(), parent: ownIdentity() };
      writeFileSync(pidFile, JSON.stringify(holder), { mode: 0o600 });
    }
    log(`${name}.started`, { pid: identity.pid });
    if (onMessage) child.on("message", onMessage);
    child.once("exit", (code, signal) => {
      gone.resolve(undefined);
      if (pidFile !== null) rmSync(pidFile, { force: true });
      this.#ended(`exit ${code ?? signal ?? "?"}`);
    });
  }

  /** A message over the channel. */
  send(message: string): void {
    this.#current?.process.send(message);
  }

  /** SIGTERM, and SIGKILL after graceMs. It is not started again. */
  async stop(graceMs: number): Promise<void> {
    this.#stop.abort();
    const current = this.#current;
    if (!current) return;
    await stopProcess(current.identity, graceMs);
    await current.gone;
  }

  /** SIGKILL, now. */
  kill(): void {
    this.#stop.abort();
    this.#current?.process.kill("SIGKILL");
  }

  #ended(how: string): void {
    const { name, log, logFile } = this.#spec;
    const held = this.#current ? Date.now() - this.#current.startedAt : 0;
    this.#current = null;
    if (this.#stop.signal.aborted) return;
    log(`${name}.died`, { how, heldMs: held });
    this.#earlyEnds = held < STEADY_MS ? this.#earlyEnds + 1 : 0;
    if (held >= STEADY_MS) this.#backoff.reset();
    if (this.#earlyEnds >= MAX_EARLY_ENDS) {
      this.#failed.reject(new Error(`${name} ended ${this.#earlyEnds} times soon after its start (${how}); its log is ${logFile}`));
      return;
    }
    void delay(this.#backoff.nextMs(), this.#stop.signal).then(() => {
      if (!this.#stop.signal.aborted) this.start();
    });
  }
}
