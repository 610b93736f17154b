import { linkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseJson } from "@vibeserve/shared";
import { z } from "zod";
import { ConfigError } from "./config.ts";
import { PLATFORM } from "./platform.ts";
import { readText } from "./process/read-text.ts";

const Holder = z.object({ pid: z.number(), start: z.number() });

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
      const holder = Holder.safeParse(parseJson(readText(path) ?? "")).data ?? null;
      if (holder !== null && processes.stat(holder.pid)?.startTicks === holder.start)
        throw new ConfigError(`gpu-agent: ${root} is in use by the agent with pid ${holder.pid}`);
      rmSync(path, { force: true });
    }
    throw new Error(`${path} could not be taken`);
  } finally {
    rmSync(draft, { force: true });
  }
}
