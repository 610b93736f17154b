import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { z } from "zod";
import { isAlive, ownIdentity } from "./identity.ts";
import { readJson } from "./read-json.ts";

/**
 * A lock file that names its holder.
 *   L1. At most one live process holds a lock: it is created by link(2), which fails when the name exists.
 *   L2. A lock whose process is gone (pid and start time) is taken over, whatever ended it.
 *   L3. Only the holder removes it.
 */
export const LockHolder = z.object({
  pid: z.int(),
  start: z.string(),
  /** What the process is, for the message to whoever is refused: "vibeserve start". */
  role: z.string(),
  /** Milliseconds since the epoch. */
  since: z.number(),
  /** The process that started this one and whose end is its end; null: started by a person. */
  parent: z.object({ pid: z.int(), start: z.string() }).nullable(),
});
export type LockHolder = z.infer<typeof LockHolder>;

export class LockHeldError extends Error {
  readonly path: string;
  readonly holder: LockHolder;
  constructor(path: string, holder: LockHolder) {
    super(`${dirname(path)} is in use by "${holder.role}", pid ${holder.pid}, since ${new Date(holder.since).toISOString()}`);
    this.name = "LockHeldError";
    this.path = path;
    this.holder = holder;
  }
}

export interface Lock {
  release(): void;
}

/** Takes the lock or throws LockHeldError. */
export function acquireLock(path: string, role: string, parent: LockHolder["parent"] = null): Lock {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const own: LockHolder = { ...ownIdentity(), role, since: Date.now(), parent };
  const body = JSON.stringify(own);
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, body, { mode: 0o600 });
  try {
    // Each round either takes the lock, finds a live holder, or removes one dead holder's file.
    for (let round = 0; round < 16; round++) {
      try {
        linkSync(draft, path);
        return { release: () => releaseLock(path, body) };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
      const holder = readHolder(path);
      if (holder && isAlive(holder)) throw new LockHeldError(path, holder);
      removeStale(path, holder);
    }
    throw new Error(`${path}: could not be taken in 16 rounds; is the clock or the file system broken?`);
  } finally {
    rmSync(draft, { force: true });
  }
}

/** Who holds it now; null: nobody alive. */
export function lockHolder(path: string): LockHolder | null {
  const holder = readHolder(path);
  return holder && isAlive(holder) ? holder : null;
}

const readHolder = (path: string): LockHolder | null => LockHolder.safeParse(readJson(path)).data ?? null;

/** Another process may have replaced the stale file between our look and our rename: then put its lock back. */
function removeStale(path: string, seen: LockHolder | null): void {
  const aside = `${path}.stale.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  const moved = readHolder(aside);
  if (moved && isAlive(moved) && moved.pid !== seen?.pid) linkSync(aside, path);
  rmSync(aside, { force: true });
}

function releaseLock(path: string, body: string): void {
  try {
    if (readFileSync(path, "utf8") === body) rmSync(path, { force: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
