import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/**
 * A process id alone is reused by the kernel; together with the time the process started it names one process for ever.
 * `start` is opaque: Linux: boot id and start in clock ticks since boot; elsewhere: what `ps` prints.
 */
export interface ProcessIdentity {
  pid: number;
  start: string;
}

/** Identity of a live process; null when there is none with this pid (a zombie counts as none). */
export function identityOf(pid: number): ProcessIdentity | null {
  if (!Number.isInteger(pid) || pid <= 0) return null;
  const start = process.platform === "linux" ? linuxStart(pid) : psStart(pid);
  return start === null ? null : { pid, start };
}

/** Identity of this process. */
export function ownIdentity(): ProcessIdentity {
  const own = identityOf(process.pid);
  if (!own) throw new Error(`process ${process.pid} can't read its own start time`);
  return own;
}

export function isAlive(identity: ProcessIdentity): boolean {
  return identityOf(identity.pid)?.start === identity.start;
}

/** Signals exactly this process; false when it is gone, whoever has its pid now. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

function linuxStart(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The command name, in parentheses, may itself hold spaces and parentheses; the fields after the last one are plain.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (fields[0] === "Z" || fields[0] === "X") return null;
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()}/${fields[19] ?? ""}`;
  } catch {
    return null;
  }
}

function psStart(pid: number): string | null {
  try {
    return (
      execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim() || null
    );
  } catch {
    return null;
  }
}
