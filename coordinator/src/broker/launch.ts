import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, watch } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { commandLine } from "../command-line.ts";
import { identityOf, type ProcessIdentity } from "../process/identity.ts";

export interface Launched {
  child: ChildProcess;
  identity: ProcessIdentity;
  port: number;
}

export interface LaunchOptions {
  binary: string;
  configFile: string;
  /** Emptied; the server writes its port here. */
  portsDir: string;
  /** What it prints before its log is open. */
  errorFile: string;
  /** What it says afterwards, appended; not given where its configuration names none. */
  logFile?: string;
  /** How many may be enrolled before it is started anew. */
  agents: number;
}

export class BrokerStartError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "BrokerStartError";
  }
}

/** A server that has not opened its port by then is stuck: recovering JetStream's files took < 1 s in all runs met so far. */
const START_LIMIT_MS = 20_000;
/**
 * Go's heap is kept near this, so that broker, coordinator and agent stay under 300 MB together when idle. An agent's account takes 50 kB while it stands, twice that
 * while the configuration is read again, and more when it is connected and at work: under a limit that is too small the collector runs all the time (with 1,000
 * agents in 96 MiB it took a core, messages waited for 0.5 s, and reading the configuration again took 6 s instead of 0.4).
 */
export const memoryLimitMiB = (agents: number): number => Math.round(96 + agents / 2);
/**
 * Go's processors, at the least. One is taken for as long as a sync to disk lasts and until Go's scheduler notices, up to 10 ms: with two, two syncs at once hold
 * up all other messages (seen in the 99th percentile of `npm run bench -- dispatch`). Idle they cost nothing that shows.
 */
const MIN_GO_PROCESSORS = 8;

const Ports = z.object({ nats: z.array(z.string()).min(1) });

/**
 * Starts nats-server in its own session (a terminal's Ctrl-C doesn't reach it) and waits until it listens.
 * spawned: called as soon as the process is there, so that one that never comes up is known too. Throws BrokerStartError with the server's own words.
 */
export async function launch(
  { binary, configFile, portsDir, errorFile, logFile, agents }: LaunchOptions,
  spawned: (identity: ProcessIdentity) => void,
): Promise<Launched> {
  rmSync(portsDir, { recursive: true, force: true });
  mkdirSync(portsDir, { recursive: true, mode: 0o700 });
  if (!existsSync(binary)) throw new BrokerStartError(`nats-server is not at ${binary}; run ${commandLine("start")}, which fetches it`);
  const errors = openSync(errorFile, "w", 0o600);
  const logged = logFile !== undefined && existsSync(logFile) ? statSync(logFile).size : 0;
  const said = (): string => lastWords(errorFile, 0) ?? (logFile === undefined ? null : lastWords(logFile, logged)) ?? "it printed nothing";
  const child = spawn(binary, ["-c", configFile], {
    detached: true,
    stdio: ["ignore", errors, errors],
    env: {
      GOMEMLIMIT: `${memoryLimitMiB(agents)}MiB`,
      GOMAXPROCS: String(Math.max(MIN_GO_PROCESSORS, availableParallelism())),
      HOME: portsDir,
      PATH: "",
    },
  });
  closeSync(errors);
  try {
    const identity = identityOf(child.pid ?? 0);
    if (identity) spawned(identity);
    const port = await listening(child, portsDir, said);
    if (!identity) throw new BrokerStartError(`nats-server ended at once: ${said()}`);
    return { child, identity, port };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
}

/** The port, once the server has written its ports file. */
async function listening(child: ChildProcess, portsDir: string, said: () => string): Promise<number> {
  return new Promise<number>((resolve, reject) => {
    const look = () => {
      const port = child.pid === undefined ? null : readPort(portsDir, child.pid);
      if (port !== null) finish(() => resolve(port));
    };
    const watcher = watch(portsDir, look);
    const timer = setTimeout(
      () => finish(() => reject(new BrokerStartError(`nats-server does not listen ${START_LIMIT_MS / 1000} s after its start: ${said()}`))),
      START_LIMIT_MS,
    );
    const ended = () => finish(() => reject(new BrokerStartError(whyEnded(said()))));
    const failed = (cause: Error) =>
      finish(() => reject(new BrokerStartError(`nats-server can't be started: ${cause.message}`, { cause })));
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      watcher.close();
      child.off("exit", ended);
      child.off("error", failed);
      settle();
    };
    child.once("exit", ended);
    child.once("error", failed);
    look();
  });
}

/** The file is named `<name of the executable>_<pid>.ports`. */
function readPort(dir: string, pid: number): number | null {
  const file = readdirSync(dir).find((name) => name.endsWith(`_${pid}.ports`));
  if (file === undefined) return null;
  try {
    const first = Ports.parse(JSON.parse(readFileSync(join(dir, file), "utf8"))).nats[0];
    return first === undefined ? null : Number(new URL(first).port);
  } catch {
    // Half written: the next change of the folder looks again.
    return null;
  }
}

function whyEnded(said: string): string {
  const taken = /listen tcp (\S+): bind: address already in use/.exec(said)?.[1];
  return taken === undefined
    ? `nats-server ended at its start: ${said}`
    : `the broker can't listen on ${taken}: the port is taken; end what holds it, or choose another (VIBESERVE_PORT, or port in config.yaml; without them any free one is used)`;
}

/** The last lines of a file from byte `from` on; null where there are none. */
function lastWords(file: string, from: number): string | null {
  const text = existsSync(file) ? readFileSync(file).subarray(from).toString("utf8").trim() : "";
  return text === "" ? null : text.split("\n").slice(-3).join(" | ");
}
