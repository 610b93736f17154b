import { linkSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "./config.ts";
import { PLATFORM } from "./platform.ts";

/**
 * One agent a private folder: two would answer each other's jobs out of one spool. The lock names its holder by pid and start time, so a dead holder's is
 * taken over. Throws ConfigError naming a live one.
 */
export function lockDataFolder(root: string, processes = PLATFORM.processes): void {
  const path = join(root, "agent.lock");
  const own = { pid: process.pid, start: processes.stat(process.pid)?.startTicks ?? 0 };
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, JSON.stringify(own), { mode: 0o600 });
  try {
    for (let round = 0; round < 8; round++) {
      try {
        linkSync(draft, path);
        process.once("exit", () => rmSync(path, { force: true }));
        return;
      } catch (error) {
        if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
      }
      const holder = readHolder(path);
      if (holder !== null && processes.stat(holder.pid)?.startTicks === holder.start)
        throw new ConfigError(`gpu-agent: ${root} is in use by the agent with pid ${holder.pid}`);
      rmSync(path, { force: true });
    }
    throw new Error(`${path} could not be taken`);
  } finally {
    rmSync(draft, { force: true });
  }
}

function readHolder(path: string): { pid: number; start: number } | null {
  try {
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (typeof value !== "object" || value === null || !("pid" in value) || !("start" in value)) return null;
    return typeof value.pid === "number" && typeof value.start === "number" ? { pid: value.pid, start: value.start } : null;
  } catch {
    return null;
  }
}
