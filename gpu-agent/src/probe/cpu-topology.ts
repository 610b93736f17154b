import { availableParallelism, cpus as osCpus, totalmem } from "node:os";
import { cpuList } from "../bench/cpu-clock.ts";
import { readText as read } from "../process/read-text.ts";

export interface Topology {
  readonly model: string;
  /** Processors that this process may use, and that its cgroup pays for. */
  readonly cpus: readonly number[];
  /** Data caches of the first processor: level → bytes, and how many processors share it. */
  readonly caches: readonly { readonly level: number; readonly bytes: number; readonly sharedBy: number }[];
  /** What the machine has, or the cgroup allows, whichever is less. */
  readonly memBytes: number;
}

/**
 * Reads /proc and /sys, under `root` where a test has its own; where a file is missing its part is left out (a container may hide any of them). On a system
 * without them (macOS) Node's own figures.
 */
export function readTopology(root = ""): Topology {
  if (read(`${root}/proc/cpuinfo`) === null) return nodesTopology();
  const allowed = cpuList(field(`${root}/proc/self/status`, /^Cpus_allowed_list:\s*(\S+)/m) ?? "0");
  const limits = cgroupLimits(root);
  const count = limits.cpus === null ? allowed.length : Math.max(1, Math.min(allowed.length, Math.floor(limits.cpus)));
  const total = Number(field(`${root}/proc/meminfo`, /^MemTotal:\s*(\d+)/m) ?? 0) * 1024;
  return {
    model: field(`${root}/proc/cpuinfo`, /^(?:model name|Model)\s*:\s*(.+)$/m)?.trim() ?? `${process.arch} processor`,
    cpus: allowed.slice(0, count),
    caches: readCaches(allowed[0] ?? 0, root),
    memBytes: Math.min(total || Number.MAX_SAFE_INTEGER, limits.memBytes ?? Number.MAX_SAFE_INTEGER),
  };
}

function nodesTopology(): Topology {
  return {
    model: osCpus()[0]?.model.trim() ?? `${process.arch} processor`,
    cpus: Array.from({ length: availableParallelism() }, (_, i) => i),
    caches: [],
    memBytes: totalmem(),
  };
}

function field(path: string, pattern: RegExp): string | null {
  return pattern.exec(read(path) ?? "")?.[1] ?? null;
}

/**
 * Folders of this process in the hierarchies, from its own up to the top, since a limit may be set at any height: version 2's, and version 1's of a
 * controller. In a container's own namespace the path is "/".
 */
function cgroupFolders(controller: string, root: string): string[] {
  const folders: string[] = [];
  for (const line of (read(`${root}/proc/self/cgroup`) ?? "").split("\n")) {
    const [, names, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (names === undefined || path === undefined) continue;
    const top = names === "" ? "/sys/fs/cgroup" : names.split(",").includes(controller) ? `/sys/fs/cgroup/${controller}` : null;
    if (top === null) continue;
    const parts = path.split("/").filter((part) => part !== "");
    for (let n = parts.length; n >= 0; n--) folders.push(`${root}${[top, ...parts.slice(0, n)].join("/")}`);
  }
  return folders;
}

export interface CgroupLimits {
  /** Processors' worth of time, 1.5 for instance; null: no limit. */
  readonly cpus: number | null;
  readonly memBytes: number | null;
}

/** The tightest limits that hold for this process. */
export function cgroupLimits(root = ""): CgroupLimits {
  const least = (values: readonly (number | null)[]): number | null => {
    const given = values.filter((v): v is number => v !== null);
    return given.length === 0 ? null : Math.min(...given);
  };
  return {
    cpus: least(cgroupFolders("cpu", root).map(cpuQuota)),
    memBytes: least(cgroupFolders("memory", root).map(memoryLimit)),
  };
}

function cpuQuota(folder: string): number | null {
  const [max, period] = (read(`${folder}/cpu.max`) ?? "").trim().split(" ");
  if (max !== undefined && period !== undefined && max !== "max") return Number(max) / Number(period);
  const quota = Number(read(`${folder}/cpu.cfs_quota_us`) ?? -1);
  return quota > 0 ? quota / Number(read(`${folder}/cpu.cfs_period_us`) ?? 100_000) : null;
}

function memoryLimit(folder: string): number | null {
  const limit = Number((read(`${folder}/memory.max`) ?? read(`${folder}/memory.limit_in_bytes`) ?? "").trim() || NaN);
  // Version 1 says "no limit" with a number near 2^63.
  return Number.isFinite(limit) && limit < 2 ** 60 ? limit : null;
}

function readCaches(cpu: number, root: string): Topology["caches"] {
  const caches: Topology["caches"][number][] = [];
  for (let i = 0; i < 8; i++) {
    const dir = `${root}/sys/devices/system/cpu/cpu${cpu}/cache/index${i}`;
    const type = read(`${dir}/type`)?.trim();
    if (type === undefined) break;
    if (type === "Instruction") continue;
    const [, n, unit] = /^(\d+)([KM])/.exec(read(`${dir}/size`) ?? "") ?? [];
    caches.push({
      level: Number(read(`${dir}/level`) ?? 0),
      bytes: Number(n ?? 0) * (unit === "M" ? 2 ** 20 : 2 ** 10),
      sharedBy: cpuList(read(`${dir}/shared_cpu_list`)?.trim() || "0").length,
    });
  }
  return caches;
}
