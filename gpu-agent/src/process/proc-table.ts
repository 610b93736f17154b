import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import type { ProcessTable, ProcStat } from "./process-table.ts";

const PAGE_BYTES = 4096;

/** One line of /proc/<pid>/stat; null when the process is gone. */
export function readStat(pid: number): ProcStat | null {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return null;
  }
  // The name may hold spaces and parentheses: fields start after the last one.
  const f = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const n = (i: number): number => Number(f[i] ?? NaN);
  return {
    pid,
    state: f[0] ?? "?",
    ppid: n(1),
    pgid: n(2),
    session: n(3),
    ownTicks: n(11) + n(12),
    childTicks: n(13) + n(14),
    startTicks: n(19),
    rssBytes: n(21) * PAGE_BYTES,
  };
}

/** Every process that this one can see, in one pass; processes that end meanwhile are left out. */
export function readTable(): ProcStat[] {
  const table: ProcStat[] = [];
  for (const name of readdirSync("/proc")) {
    if (name.charCodeAt(0) > 57) continue;
    const stat = readStat(Number(name));
    if (stat) table.push(stat);
  }
  return table;
}

/** Identity of the pid namespace of a process, such as "pid:[4026532198]"; null when gone or not ours to read. */
export function pidNamespace(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return null;
  }
}

/** Real uid; null when gone. */
export function realUid(pid: number): number | null {
  try {
    const m = /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"));
    return m ? Number(m[1]) : null;
  } catch {
    return null;
  }
}

/** What it was started with, unless it has overwritten that; empty when gone, or another user's. */
function environment(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
  } catch {
    return [];
  }
}

const startedWith = (prefix: string): number[] =>
  readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && environment(pid).some((entry) => entry.startsWith(prefix)));

/** Linux's. */
export const PROC: ProcessTable = {
  read: readTable,
  stat: readStat,
  uidOf: ({ pid }) => realUid(pid),
  namespaceOf: pidNamespace,
  hasEnvironment: ({ pid }, entry) => environment(pid).includes(entry),
  startedWith,
};
