import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExitInfo, RunningStack } from "../../gpu-agent/src/serve/running-stack.ts";
import type { FakeSpec } from "./fake-candidate.ts";

/** A fake candidate as the bench sees it: a real process behind the RunningStack interface, without a sandbox. */
export async function startFake(spec: FakeSpec): Promise<RunningStack & AsyncDisposable & { readonly pid: number }> {
  const folder = await mkdtemp(join(tmpdir(), "vs-fake-"));
  const socketPath = join(folder, "s.sock");
  const script = join(import.meta.dirname, "fake-candidate.ts");
  const child = spawn(process.execPath, [script, socketPath, JSON.stringify(spec)], { stdio: ["ignore", "pipe", "pipe"] });
  const log: string[] = [];
  child.stderr.on("data", (bytes: Buffer) => log.push(bytes.toString()));
  const exited = exitOf(child);
  await Promise.race([once(child.stdout, "data"), exited.then(() => Promise.reject(new Error(`fake ended: ${log.join("")}`)))]);
  const pid = child.pid ?? 0;
  const stop = async (): Promise<void> => {
    child.kill("SIGKILL");
    await exited;
    await rm(folder, { recursive: true, force: true });
  };
  return {
    pid,
    socketPath,
    exited,
    pids: () => [pid],
    sandbox: "none",
    cpuSeconds: () => cpuSeconds(pid),
    pause: async () => void child.kill("SIGSTOP"),
    resume: async () => void child.kill("SIGCONT"),
    stop,
    logTail: () => log.join("").slice(-8000),
    [Symbol.asyncDispose]: stop,
  };
}

async function exitOf(child: ChildProcess): Promise<ExitInfo> {
  const [code, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  return { code, signal, at: Date.now() };
}

/** utime and stime are fields 14 and 15; the name in field 2 may hold spaces. */
async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
