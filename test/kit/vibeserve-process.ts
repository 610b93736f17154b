import { identityOf } from "../../coordinator/src/process/identity.ts";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { natsServer } from "./real-broker.ts";
import { tinyTarget, writeTinyInstallation } from "./tiny-stack.ts";

const MAIN = join(import.meta.dirname, "../../coordinator/src/main.ts");

/** A `vibeserve` command in a process of its own. */
export interface Command {
  child: ChildProcess;
  /** What it has printed so far. */
  out: () => string;
  err: () => string;
  /** Resolves when stdout (or stderr) matches. Rejects if the command ends first. */
  printed: (pattern: RegExp) => Promise<void>;
  /** Its exit code once it has ended; -1 where a signal ended it. */
  ended: Promise<number>;
}

/** A folder with a tiny installation, whose gpu-agent is a simulated one, and a data folder. */
export class Site {
  readonly dir: string;
  readonly data: string;
  readonly target: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #commands: Command[] = [];

  /** install: puts an installation, without its gpu-agent, into a folder; default: a tiny one. */
  constructor(dir: string, env: Record<string, string> = {}, install: (root: string) => void = writeTinyInstallation) {
    this.dir = dir;
    this.data = join(dir, "data");
    this.target = join(dir, "target.yaml");
    const root = join(dir, "root");
    install(root);
    mkdirSync(join(root, "gpu-agent/src"), { recursive: true });
    writeFileSync(
      join(root, "gpu-agent/src/main.ts"),
      `await import(${JSON.stringify(join(import.meta.dirname, "fake-agent-main.ts"))});\n`,
    );
    writeFileSync(this.target, stringify(tinyTarget));
    this.#env = { ...process.env, VIBESERVE_ROOT: root, VIBESERVE_NATS_SERVER: natsServer, ...env };
  }

  run(...args: string[]): Command {
    // The channel closes when a test is given up: then the command stops, and nothing is left running.
    const child = spawn(process.execPath, [MAIN, ...args, "--data", this.data], {
      env: this.#env,
      cwd: this.dir,
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    child.channel?.unref();
    let [out, err] = ["", ""];
    const watchers = new Set<() => void>();
    child.stdout?.on("data", (chunk: Buffer) => {
      out += chunk.toString();
      for (const look of [...watchers]) look();
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      err += chunk.toString();
      for (const look of [...watchers]) look();
    });
    const ended = once(child, "close").then(([code]) => (code as number | null) ?? -1);
    const command: Command = {
      child,
      out: () => out,
      err: () => err,
      ended,
      printed: (pattern) =>
        new Promise((resolve, reject) => {
          const look = () => {
            if (!pattern.test(out) && !pattern.test(err)) return;
            watchers.delete(look);
            resolve();
          };
          watchers.add(look);
          look();
          void ended.then((code) => reject(new Error(`ended with ${code} before it printed ${String(pattern)}:\n${out}\n${err}`)));
        }),
    };
    this.#commands.push(command);
    return command;
  }

  /** What a verb answers as JSON. Throws where it does not end with 0. */
  async answer<T>(...args: string[]): Promise<T> {
    const { ended, out, err } = this.run(...args, "--json");
    const code = await ended;
    if (code !== 0) throw new Error(`vibeserve ${args.join(" ")} ended with ${code}:\n${err()}`);
    return JSON.parse(out()) as T;
  }

  start(...args: string[]): Command {
    return this.run("start", "--no-setup", ...args);
  }

  /** pids of what runs for this site: coordinator, broker, agent. */
  pids(): { coordinator: number | null; broker: number | null; agent: number | null } {
    const pid = (file: string) => {
      const path = join(this.data, file);
      return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as { pid: number }).pid : null;
    };
    return { coordinator: pid("up.lock"), broker: pid("nats/broker.json"), agent: pid("agent.pid") };
  }

  /** SIGTERM to every command that still runs, the newest first; resolves once all have ended. */
  async stop(): Promise<void> {
    for (const { child, ended } of this.#commands.toReversed()) {
      child.kill("SIGTERM");
      await ended;
    }
  }

  /** Kills whatever a failed test left. */
  cleanUp(): void {
    for (const { child } of this.#commands) child.kill("SIGKILL");
    for (const pid of Object.values(this.pids()))
      if (pid !== null)
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // Gone already.
        }
  }
}

/** Is a process with this pid there? One that has ended counts as gone even before whoever adopted it has reaped it: it runs nothing. */
export function alive(pid: number | null): boolean {
  return pid !== null && identityOf(pid) !== null;
}
