import { readFile } from "node:fs/promises";
import { cpus } from "node:os";

/** CPU time of a set of processors since boot, in seconds, and when it was read (ms, monotonic). */
export interface CpuReading {
  readonly atMs: number;
  readonly busyS: number;
  /** Time in which the hypervisor ran something else; 0 where the system does not say. */
  readonly stealS: number;
  /** Everything together, idle included: elapsed time × processors. */
  readonly totalS: number;
}

/** /proc/stat counts in USER_HZ, which is 100 on every Linux port that Node runs on. */
const TICKS_PER_S = 100;

/** "0,2-3" → [0, 2, 3]. Throws RangeError on anything else. */
export function cpuList(list: string): number[] {
  return list.split(",").flatMap((part) => {
    const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
    if (from === undefined) throw new RangeError(`"${list}" is no list of processors`);
    const first = Number(from);
    return Array.from({ length: Number(to ?? from) - first + 1 }, (_, i) => first + i);
  });
}

/** Sums the given processors in the text of /proc/stat; `atMs` is when it was read. Throws if one of them is not there. */
export function parseProcStat(text: string, processors: readonly number[], atMs: number): CpuReading {
  let busy = 0;
  let steal = 0;
  let total = 0;
  for (const id of processors) {
    // user nice system idle iowait irq softirq steal; guest time is already part of user.
    const fields = new RegExp(`^cpu${id} (.*)$`, "m").exec(text)?.[1]?.trim().split(" ").slice(0, 8).map(Number);
    if (!fields) throw new Error(`/proc/stat has no processor ${id}`);
    const sum = fields.reduce((a, b) => a + b, 0);
    const stolen = fields[7] ?? 0;
    steal += stolen;
    total += sum;
    busy += sum - (fields[3] ?? 0) - (fields[4] ?? 0) - stolen;
  }
  return { atMs, busyS: busy / TICKS_PER_S, stealS: steal / TICKS_PER_S, totalS: total / TICKS_PER_S };
}

/** Reads the clock of these processors: /proc/stat on Linux, os.cpus() elsewhere (which knows no steal time). */
export async function readCpu(processors: readonly number[]): Promise<CpuReading> {
  if (process.platform === "linux") return parseProcStat(await readFile("/proc/stat", "utf8"), processors, performance.now());
  const all = cpus();
  let busy = 0;
  let total = 0;
  for (const id of processors) {
    const times = all[id]?.times;
    if (!times) throw new Error(`there is no processor ${id}`);
    const used = times.user + times.nice + times.sys + times.irq;
    busy += used / 1000;
    total += (used + times.idle) / 1000;
  }
  return { atMs: performance.now(), busyS: busy, stealS: 0, totalS: total };
}
