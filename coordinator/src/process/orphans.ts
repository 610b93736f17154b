import { existsSync, readFileSync, rmSync } from "node:fs";
import { parseJson } from "@vibeserve/shared";
import { isAlive } from "./identity.ts";
import { LockHolder } from "./lock.ts";
import { stopProcess } from "./stop.ts";

/** What is behind a lock or pid file. */
export type Leftover =
  | { kind: "none" }
  /** The process that started it is gone: it lives on by mistake and may be stopped. */
  | { kind: "orphan"; holder: LockHolder }
  /** Somebody's running process. */
  | { kind: "foreign"; holder: LockHolder };

export function lookAt(file: string): Leftover {
  if (!existsSync(file)) return { kind: "none" };
  const parsed = LockHolder.safeParse(parseJson(readFileSync(file, "utf8")));
  if (!parsed.success || !isAlive(parsed.data)) return { kind: "none" };
  const holder = parsed.data;
  return holder.parent && !isAlive(holder.parent) ? { kind: "orphan", holder } : { kind: "foreign", holder };
}

/** Stops an orphan and takes its file away. Returns who it was, or null if there was none. */
export async function stopOrphan(file: string, graceMs: number): Promise<LockHolder | null> {
  const left = lookAt(file);
  if (left.kind !== "orphan") return null;
  await stopProcess(left.holder, graceMs);
  rmSync(file, { force: true });
  return left.holder;
}
