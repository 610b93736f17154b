import { readFileSync } from "node:fs";

export interface Topology {
  readonly model: string;
  /** Processors that this process may use, and that its cgroup pays for. */
  readonly cpus: readonly number[];
  /** Data caches of the first processor: level → bytes, and how many processors share it. */
  readonly caches: readonly { readonly level: number; readonly bytes: number; readonly sharedBy: number }[];
  /** What the machine has, or the cgroup allows, whichever is less. */
  readonly memBytes: number;
}

/** Reads /proc and /sys; where a file is missing its part is left out (a container may hide any of them). */
export function readTopology(): Topology {
  const allowed = parseCpuList(field("/proc/self/status", /^Cpus_allowed_list:\s*(\S+)/m) ?? "0");
  const quota = cgroupCpus();
  const count = quota === null ? allowed.length : Math.max(1, Math.min(allowed.length, Math.floor(quota)));
  const total = Number(field("/proc/meminfo", /^MemTotal:\s*(\d+)/m) ?? 0) * 1024;
  return {
    model: field("/proc/cpuinfo", /^(?:model name|Model)\s*:\s*(.+)$/m)?.trim() ?? `${process.arch} processor`,
    cpus: allowed.slice(0, count),
    caches: readCaches(allowed[0] ?? 0),
    memBytes: Math.min(total || Number.MAX_SAFE_INTEGER, cgroupMemory() ?? Number.MAX_SAFE_INTEGER),
  };
}

/** "0-2,5" → [0, 1, 2, 5]. */
export function parseCpuList(text: string): number[] {
  return text
    .trim()
    .split(",")
    .flatMap((part) => {
      const [from = NaN, to = from] = part.split("-").map(Number);
      return Array.from({ length: to - from + 1 }, (_, i) => from + i);
    })
    .filter(Number.isInteger);
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function field(path: string, pattern: RegExp): string | null {
  return pattern.exec(read(path) ?? "")?.[1] ?? null;
}

/** Folders of this process in the hierarchies: version 2's, and version 1's of a controller. In a container's own namespace the path is "/". */
function cgroupFolders(controller: string): string[] {
  const folders: string[] = [];
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, names, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (names === undefined || path === undefined) continue;
    if (names === "") folders.push(`/sys/fs/cgroup${path}`, "/sys/fs/cgroup");
    else if (names.split(",").includes(controller)) folders.push(`/sys/fs/cgroup/${controller}${path}`, `/sys/fs/cgroup/${controller}`);
  }
  return folders;
}

function cgroupCpus(): number | null {
  for (const folder of cgroupFolders("cpu")) {
    const [max, period] = (read(`${folder}/cpu.max`) ?? "").trim().split(" ");
    if (max !== undefined && period !== undefined && max !== "max") return Number(max) / Number(period);
    const quota = Number(read(`${folder}/cpu.cfs_quota_us`) ?? -1);
    if (quota > 0) return quota / Number(read(`${folder}/cpu.cfs_period_us`) ?? 100_000);
  }
  return null;
}

function cgroupMemory(): number | null {
  for (const folder of cgroupFolders("memory")) {
    const limit = Number((read(`${folder}/memory.max`) ?? read(`${folder}/memory.limit_in_bytes`) ?? "").trim() || NaN);
    // Version 1 says "no limit" with a number near 2^63.
    if (Number.isFinite(limit) && limit < 2 ** 60) return limit;
  }
  return null;
}

function readCaches(cpu: number): Topology["caches"] {
  const caches: Topology["caches"][number][] = [];
  for (let i = 0; i < 8; i++) {
    const dir = `/sys/devices/system/cpu/cpu${cpu}/cache/index${i}`;
    const type = read(`${dir}/type`)?.trim();
    if (type === undefined) break;
    if (type === "Instruction") continue;
    const [, n, unit] = /^(\d+)([KM])/.exec(read(`${dir}/size`) ?? "") ?? [];
    caches.push({
      level: Number(read(`${dir}/level`) ?? 0),
      bytes: Number(n ?? 0) * (unit === "M" ? 2 ** 20 : 2 ** 10),
      sharedBy: parseCpuList(read(`${dir}/shared_cpu_list`) ?? "0").length,
    });
  }
  return caches;
}
