import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { LoadPlan, LoadResult } from "../../loadgen/plan.ts";
import { tempFolder } from "../process/temp-folder.ts";
import { JobError } from "../worker/job-error.ts";

export interface LoadHooks {
  /** Connections are open; the clock starts when this resolves. */
  onReady(): Promise<void>;
  /** The last response ended; called at once, before anything is parsed. */
  onEnded(): Promise<void>;
}

const MAIN = join(import.meta.dirname, "../../loadgen/main.ts");
/** Start of a Node process on a busy machine took 0.2–0.5 s. */
const READY_TIMEOUT_MS = 20_000;
/** To parse at most `totalBytes` and write the records. */
const WRITE_TIMEOUT_MS = 30_000;

/**
 * One run of the load generator as a process of its own. `workDir` must be private to the agent: the plan holds hidden prompts. Throws JobError
 * `load-generator` (harness) where the generator itself fails; what the server did wrong is in the result. Aborts with the signal's reason.
 */
export async function runLoad(plan: LoadPlan, hooks: LoadHooks, workDir: string, signal: AbortSignal): Promise<LoadResult> {
  signal.throwIfAborted();
  await using folder = await tempFolder("load-", workDir);
  const [planPath, resultPath] = [join(folder.path, "plan.json"), join(folder.path, "result.json")];
  await writeFile(planPath, JSON.stringify(plan), { mode: 0o600 });
  const child = spawn(process.execPath, [MAIN, planPath, resultPath], { stdio: ["pipe", "pipe", "pipe"], env: {} });
  const kill = (): void => void child.kill("SIGKILL");
  signal.addEventListener("abort", kill);
  let stderr = "";
  child.stderr.on("data", (bytes: Buffer) => (stderr = (stderr + bytes.toString()).slice(-2000)));
  child.stdin.on("error", () => undefined);
  const exited = once(child, "close");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (withinMs: number): Promise<string> => {
    const timer = setTimeout(kill, withinMs);
    const line = await lines.next().finally(() => clearTimeout(timer));
    signal.throwIfAborted();
    if (line.done)
      throw new JobError("harness", "load-generator", `the load generator ended early: ${stderr || `silent for ${withinMs} ms`}`);
    return line.value;
  };
  try {
    let word = await next(READY_TIMEOUT_MS);
    if (word === "ready") {
      await hooks.onReady();
      child.stdin.write("go\n");
      word = await next(plan.limitMs + READY_TIMEOUT_MS);
      await hooks.onEnded();
    }
    // "ended" without "ready": it could not connect, which the result says.
    if (word !== "ended") throw new JobError("harness", "load-generator", `the load generator said ${JSON.stringify(word.slice(0, 100))}`);
    await next(WRITE_TIMEOUT_MS);
    return JSON.parse(await readFile(resultPath, "utf8")) as LoadResult;
  } finally {
    signal.removeEventListener("abort", kill);
    kill();
    await exited;
  }
}
