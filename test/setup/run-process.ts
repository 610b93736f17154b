import { spawn, type ChildProcess } from "node:child_process";

/** A process that was run to its end: stdout and stderr together. */
export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  text: string;
}

/** A process of a test, with its output so far and its end. */
export interface Running {
  child: ChildProcess;
  ended: Promise<Ended>;
  /** Resolves once the output contains the text; rejects if the process ends before. */
  says: (text: string) => Promise<void>;
}

/** Starts `argv` in a process group of its own with exactly this environment. */
export function start(argv: readonly [string, ...string[]], env: Record<string, string>, cwd?: string): Running {
  const [file, ...args] = argv;
  const child = spawn(file, args, { env, stdio: ["ignore", "pipe", "pipe"], detached: true, ...(cwd === undefined ? {} : { cwd }) });
  let text = "";
  const waiting = new Set<() => void>();
  const keep = (chunk: Buffer): void => {
    text += chunk.toString();
    for (const look of waiting) look();
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, text }));
  });
  const says = (wanted: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (!text.includes(wanted)) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
      child.once("close", () => reject(new Error(`ended before it said "${wanted}":\n${text}`)));
    });
  return { child, ended, says };
}

/** Kills a process group outright. */
export function killGroup(pid: number | undefined): void {
  if (pid === undefined) throw new Error("the process was never started");
  process.kill(-pid, "SIGKILL");
}
