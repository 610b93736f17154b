import { copyFile, cp, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Mount, Sandbox, SandboxCommand } from "./sandbox.ts";

/** Mounts, and where the command finds them. */
export interface Placement {
  readonly mounts: readonly Mount[];
  /** Path for the command of something that was mounted from `from`. */
  path(from: string): string;
}

/**
 * With bubblewrap a thing appears where its mount says. Without it the command sees this machine's own paths; where root runs it as another user, who
 * can't enter the agent's private folders, read-only things are copied into `stagingDir` (which that user can enter) first.
 */
export async function placeMounts(
  sandbox: Sandbox,
  mounts: readonly Mount[],
  provenance: SandboxCommand["provenance"],
  stagingDir: string,
): Promise<Placement> {
  const places = new Map<string, string>();
  const copies = sandbox.kind === "none" && process.getuid?.() === 0 && provenance !== "baseline";
  for (const [i, m] of mounts.entries()) {
    if (sandbox.kind === "bubblewrap") places.set(m.from, m.to ?? m.from);
    else if (copies && m.mode === "ro" && !(await openToAll(m.from)))
      places.set(m.from, await copyInto(m.from, join(stagingDir, String(i))));
    else places.set(m.from, m.from);
  }
  return {
    mounts,
    path: (from) => {
      const place = places.get(from);
      if (place === undefined) throw new TypeError(`${from} is not mounted`);
      return place;
    },
  };
}

/** Everyone may read it, and enter or run it where anyone may. above: and enter every folder above it. */
export async function openToAll(path: string, above = true): Promise<boolean> {
  const own = await stat(path);
  const needed = own.isDirectory() || (own.mode & 0o111) !== 0 ? 0o005 : 0o004;
  if ((own.mode & needed) !== needed) return false;
  if (!above) return true;
  for (let dir = dirname(path); ; dir = dirname(dir)) {
    if (((await stat(dir)).mode & 0o001) === 0) return false;
    if (dir === dirname(dir)) return true;
  }
}

async function copyInto(from: string, to: string): Promise<string> {
  if ((await stat(from)).isDirectory()) await cp(from, to, { recursive: true });
  else await copyFile(from, to);
  return to;
}
