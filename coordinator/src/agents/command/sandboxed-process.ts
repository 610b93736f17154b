import { spawn } from "node:child_process";
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { identityOf, isAlive, signalProcess, type ProcessIdentity } from "../../process/identity.ts";

/** How it ended. by: "itself", or why it was killed. bwrap: what bubblewrap itself says where it could not start the sandbox. */
export interface Ended {
  exit: number | null;
  by: "itself" | "wall" | "signal" | "memory";
  started: boolean;
}

export interface RunLimits {
  wallMs: number;
  /** Resident memory of all its processes together, looked at every LOOK_MS. */
  memBytes: number;
}

const LOOK_MS = 2_000;
const KILL_MS = 5_000;
const PAGE_BYTES = 4_096;

/**
 * Runs a bubblewrap command to its end, at the latest its wall limit, and returns only when nothing of it is left: the first process of its pid namespace
 * is killed, with which the kernel ends every other, however it hid from its parent and session; then the table of processes is looked through.
 * Rejects where bubblewrap is gone, or something survived: never for what the command does.
 */
export async function runSandboxed(
  argv: readonly string[],
  limits: RunLimits,
  signal: AbortSignal,
  onChunk: (chunk: Buffer, from: "stdout" | "stderr") => void,
): Promise<Ended> {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { cwd: "/", env: {}, detached: true, stdio: ["ignore", "pipe", "pipe", "pipe"] });
  const gone = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code));
  });
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const inside: { init: ProcessIdentity | null; namespace: string | null } = { init: null, namespace: null };
  let status = "";
  (child.stdio[3] as Readable).on("data", (chunk: Buffer) => {
    status = (status + chunk.toString("utf8")).slice(0, 4_096);
    // One line, but written in pieces.
    const [, pid = "", inode = ""] = /"child-pid": *(\d+).*"pid-namespace": *(\d+).*\n/.exec(status) ?? [];
    if (inside.namespace !== null || pid === "") return;
    inside.init = identityOf(Number(pid));
    inside.namespace = `pid:[${inode}]`;
  });
  for (const from of ["stdout", "stderr"] as const) child[from]?.on("data", (chunk: Buffer) => onChunk(chunk, from));

  // Zombies are gone as far as anyone here can bring it about: their parent buries them.
  const members = (): string[] =>
    inside.namespace === null
      ? []
      : readdirSync("/proc").filter((pid) => /^\d/.test(pid) && namespaceOf(pid) === inside.namespace && identityOf(Number(pid)) !== null);
  const done = new AbortController();
  const until = AbortSignal.any([signal, done.signal]);
  const wall = sleep(limits.wallMs, "wall" as const, { signal: until }).catch(() => "signal" as const);
  const memory = (async () => {
    for (;;) {
      await sleep(LOOK_MS, undefined, { signal: until });
      if (members().reduce((sum, pid) => sum + residentBytes(pid), 0) > limits.memBytes) return "memory" as const;
    }
  })().catch(() => "signal" as const);
  try {
    const by = await Promise.race([gone.then(() => "itself" as const), wall, memory]);
    if (inside.init) signalProcess(inside.init, "SIGKILL");
    // Before bubblewrap said who its child is, the child dies with it.
    else if (by !== "itself") child.kill("SIGKILL");
    const exit = await gone;
    // What bubblewrap and the command said last may be read after the end is known.
    await Promise.race([closed, sleep(KILL_MS, undefined, { ref: false })]);
    const ends = Date.now() + KILL_MS;
    for (let left = members(); left.length > 0 || (inside.init && isAlive(inside.init)); left = members()) {
      if (Date.now() > ends)
        throw new Error(`processes ${left.join(", ")} of a coding agent are still there ${KILL_MS / 1000} s after SIGKILL`);
      for (const member of left.map((pid) => identityOf(Number(pid)))) if (member) signalProcess(member, "SIGKILL");
      await sleep(5);
    }
    return { exit: by === "itself" ? exit : null, by, started: inside.namespace !== null };
  } finally {
    done.abort();
  }
}

/** null: gone, or not ours to see. */
function namespaceOf(pid: string): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return null;
  }
}

function residentBytes(pid: string): number {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1] ?? 0) * PAGE_BYTES;
  } catch {
    return 0;
  }
}
