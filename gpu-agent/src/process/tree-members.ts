import { PLATFORM } from "../platform.ts";
import type { ProcStat } from "./process-table.ts";

/** How the processes of one tree are recognised, also those that left their parent, group and session (a daemon's double fork). */
export interface TreeIdentity {
  readonly rootPid: number;
  readonly rootStartTicks: number;
  /** Sandboxed: everything in this pid namespace belongs to it. */
  readonly pidNamespace: string | null;
  /** Run under a uid that nothing else has. */
  readonly uid: number | null;
  /** "NAME=value" in the environment that it was started with. */
  readonly mark: string;
}

/** All processes of the tree that still run or are stopped; zombies are left out, since only their parent can bury them. */
export function treeMembers(id: TreeIdentity, processes = PLATFORM.processes): ProcStat[] {
  const table = processes.read();
  const children = new Map<number, ProcStat[]>();
  for (const p of table) {
    const list = children.get(p.ppid);
    if (list) list.push(p);
    else children.set(p.ppid, [p]);
  }
  const found = new Map<number, ProcStat>();
  const visit = (p: ProcStat): void => {
    if (found.has(p.pid)) return;
    found.set(p.pid, p);
    for (const c of children.get(p.pid) ?? []) visit(c);
  };
  for (const p of table) {
    if (p.pid === process.pid || p.startTicks < id.rootStartTicks) continue;
    if (p.pid === id.rootPid && p.startTicks === id.rootStartTicks) visit(p);
    else if (p.session === id.rootPid || p.pgid === id.rootPid) visit(p);
    else if (id.pidNamespace !== null && processes.namespaceOf(p.pid) === id.pidNamespace) visit(p);
    else if (id.uid !== null && processes.uidOf(p) === id.uid) visit(p);
    else if (id.pidNamespace === null && processes.hasEnvironment(p, id.mark)) visit(p);
  }
  return [...found.values()].filter((p) => p.state !== "Z" && p.state !== "X");
}
