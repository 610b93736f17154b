import { readFileSync } from "node:fs";
import type { Limits } from "./sandbox.ts";

/** What a server gets unless it says otherwise: weights as float32 twice over and a KV cache fit into 4 GiB; 4 h of CPU a processor are over any job's deadline. */
export const SERVE_LIMITS: Limits = {
  memBytes: 4 * 2 ** 30,
  processes: 256,
  openFiles: 4096,
  cpuSeconds: 4 * 3600,
  fileBytes: 256 * 2 ** 20,
};
/** A compiler is a short process, but many of them may run; objects with debug information stay far under 256 MiB. */
export const BUILD_LIMITS: Limits = { memBytes: 4 * 2 ** 30, processes: 512, openFiles: 4096, cpuSeconds: 1200, fileBytes: 256 * 2 ** 20 };

/**
 * The same, at least as wide as an accelerator's runtimes and frameworks need. A PyTorch process that has opened its device has 1.5 GB of private writable memory, of which
 * 0.8 are resident, and 18 threads on 16 processors (torch 2.11 on an H200); pinned host memory and what is mapped of the device count as neither.
 * torch.compile starts a worker a processor, each with threads of its own; its caches and Triton's lie in /tmp.
 */
export const forAccelerator = (limits: Limits): Limits => ({
  ...limits,
  memBytes: Math.max(limits.memBytes, 16 * 2 ** 30),
  processes: Math.max(limits.processes, 4096),
  fileBytes: Math.max(limits.fileBytes, 4 * 2 ** 30),
});

/** prlimit's option → name in /proc/self/limits. */
const NAMES = {
  data: "Max data size",
  as: "Max address space",
  nproc: "Max processes",
  nofile: "Max open files",
  cpu: "Max cpu time",
  fsize: "Max file size",
} as const;

/**
 * argv prefix that sets the rlimits and then runs the rest. DATA bounds private writable memory; AS is wide, since thread arenas reserve address space
 * that they never touch, and only catches shared mappings. CPU: SIGXCPU at the limit, KILL 5 s later. The agent's own hard limits are never passed,
 * since only root could. `accelerator`: no AS, since CUDA and ROCm reserve as much address space as all devices and the host have memory.
 */
export function rlimitArgv(
  prlimit: string,
  limits: Limits,
  accelerator = false,
  ownLimits: string = readFileSync("/proc/self/limits", "latin1"),
): string[] {
  const bounded = (name: keyof typeof NAMES, wanted: number): number => {
    const hard = new RegExp(`^${NAMES[name]}\\s+\\S+\\s+(\\d+)`, "m").exec(ownLimits)?.[1];
    return hard === undefined ? wanted : Math.min(wanted, Number(hard));
  };
  const cpu = bounded("cpu", limits.cpuSeconds);
  return [
    prlimit,
    `--data=${bounded("data", limits.memBytes)}`,
    ...(accelerator ? [] : [`--as=${bounded("as", limits.memBytes * 4 + 8 * 2 ** 30)}`]),
    `--nproc=${bounded("nproc", limits.processes)}`,
    `--nofile=${bounded("nofile", limits.openFiles)}`,
    `--cpu=${cpu}:${bounded("cpu", cpu + 5)}`,
    `--fsize=${bounded("fsize", limits.fileBytes)}`,
    "--core=0",
    "--",
  ];
}

/** Sets a limit, and accepts one that is lower already and can't be raised; ends where neither holds. */
const LIMIT = `limit() { ulimit "-$1" "$2" 2>/dev/null || [ "$(ulimit -H "-$1")" -le "$2" ] || { echo "no limit -$1" >&2; exit 126; }; }`;

/**
 * The same by bash's ulimit, for macOS, which has no prlimit. Of memory nothing: its kernel holds no process to DATA or AS, so that the whole tree's resident memory, looked
 * at once a second, is all that bounds it. Processes are counted for the user, so those that run already (`running`) come on top; threads are not counted.
 */
export function ulimitArgv(limits: Limits, running: number): string[] {
  const wanted = { c: 0, n: limits.openFiles, t: limits.cpuSeconds, f: Math.ceil(limits.fileBytes / 1024), u: limits.processes + running };
  const lines = Object.entries(wanted).map(([name, value]) => `limit ${name} ${value}`);
  return ["/bin/bash", "-c", [LIMIT, ...lines, 'exec "$@"'].join("\n"), "limits"];
}
