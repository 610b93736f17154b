import { PROC } from "./process/proc-table.ts";
import type { ProcessTable } from "./process/process-table.ts";
import { psTable } from "./process/ps-table.ts";

/** What an agent does otherwise on macOS. Chosen once; tests make their own. */
export interface Platform {
  readonly name: "linux" | "darwin";
  readonly processes: ProcessTable;
  /** macOS's sandbox; null: bubblewrap is looked for. */
  readonly sandboxExec: string | null;
  /** The user that the agent runs as. */
  readonly uid: number | undefined;
}

export const platformOf = (name: string): Platform =>
  name === "darwin"
    ? { name, processes: psTable(), sandboxExec: "/usr/bin/sandbox-exec", uid: process.getuid?.() }
    : { name: "linux", processes: PROC, sandboxExec: null, uid: process.getuid?.() };

/** This process's own. */
export const PLATFORM: Platform = platformOf(process.platform);
