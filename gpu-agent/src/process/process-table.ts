/** A process as the system lists it, times in hundredths of a second: Linux's clock ticks, whatever the kernel's own rate. */
export interface ProcStat {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly session: number;
  /** One letter: "T" is stopped, "Z" a zombie. */
  readonly state: string;
  /** user + system of the process, and of its children that it has waited for. */
  readonly ownTicks: number;
  readonly childTicks: number;
  readonly startTicks: number;
  readonly rssBytes: number;
}

export const TICKS_PER_SECOND = 100;

/** The processes of this machine: /proc on Linux, `ps` on macOS. */
export interface ProcessTable {
  /** Every process that this one can see, in one pass; processes that end meanwhile are left out. */
  read(): ProcStat[];
  /** null when the process is gone. */
  stat(pid: number): ProcStat | null;
  /** Real uid; null when gone. */
  uidOf(process: ProcStat): number | null;
  /** Identity of its pid namespace, such as "pid:[4026532198]"; null when gone, not ours to read, or the system has none. */
  namespaceOf(pid: number): string | null;
  /** True if the process was started with this "NAME=value", and has not overwritten it. */
  hasEnvironment(process: ProcStat, entry: string): boolean;
  /** Pids of all that were started with an entry that begins like this. */
  startedWith(prefix: string): number[];
}

/** This process and all that descends from it. */
export function descendants(table: readonly ProcStat[]): ReadonlySet<number> {
  const found = new Set([process.pid]);
  for (let before = 0; before < found.size;) {
    before = found.size;
    for (const { pid, ppid } of table) if (found.has(ppid)) found.add(pid);
  }
  return found;
}
