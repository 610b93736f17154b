import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { ProcessTree } from "./process-tree.ts";

export interface WatchLimits {
  /** Resident memory of the whole tree. */
  readonly memBytes: number;
  /** Folders that the tree can write to on this machine's disk, and the most that may lie in them together. */
  readonly folders: readonly string[];
  readonly folderBytes: number;
}

export interface Excess {
  readonly code: "memory-limit" | "disk-limit";
  readonly message: string;
}

/** Once a second: rlimits bound each process, not their sum, and nothing else bounds a writable folder. A look costs about a millisecond. */
const PERIOD_MS = 1_000;

/** Kills the tree when it passes a limit; what it passed is then in `excess`. */
export function watchTree(tree: ProcessTree, limits: WatchLimits): { readonly excess: () => Excess | null } {
  let excess: Excess | null = null;
  const timer = setInterval(() => {
    try {
      excess ??= findExcess(tree, limits);
    } catch {
      // Where `ps` can't be started (macOS) this look is left out; the next comes in a second.
    }
    if (excess) {
      clearInterval(timer);
      // stop() reports a survivor to whoever stops the tree in the end; here it only must not be unhandled.
      tree.stop(0).catch(() => undefined);
    }
  }, PERIOD_MS);
  timer.unref();
  void tree.exited.then(() => clearInterval(timer));
  return { excess: () => excess };
}

function findExcess(tree: ProcessTree, limits: WatchLimits): Excess | null {
  const rss = tree.rssBytes();
  if (rss > limits.memBytes)
    return { code: "memory-limit", message: `its processes hold ${mib(rss)} MiB of memory, over the limit of ${mib(limits.memBytes)} MiB` };
  let disk = 0;
  for (const folder of limits.folders) {
    disk += folderBytes(folder, limits.folderBytes - disk);
    if (disk > limits.folderBytes)
      return { code: "disk-limit", message: `it wrote more than ${mib(limits.folderBytes)} MiB into its folders` };
  }
  return null;
}

const mib = (bytes: number): number => Math.round(bytes / 2 ** 20);

/** Size of a folder's files, each counted as at least 4 KiB; gives up soon after `enough`. */
function folderBytes(folder: string, enough: number): number {
  let sum = 0;
  let entries;
  try {
    entries = readdirSync(folder, { withFileTypes: true });
  } catch {
    return 0;
  }
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) sum += 4096 + folderBytes(path, enough - sum);
    else {
      try {
        sum += Math.max(4096, lstatSync(path).size);
      } catch {
        sum += 4096;
      }
    }
    if (sum > enough) break;
  }
  return sum;
}
