import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

/** The version in this package's package.json. */
export function packageVersion(): string {
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(join(import.meta.dirname, "../package.json"), "utf8"))).version;
}

/** Is version a before b? By the numbers of "1.2.3", missing ones being 0; whatever follows them says nothing. */
export function older(a: string, b: string): boolean {
  const [x = [], y = []] = [a, b].map((v) => (/^\d+(\.\d+)*/.exec(v)?.[0] ?? "0").split(".").map(Number));
  const at = [0, 1, 2].find((i) => (x[i] ?? 0) !== (y[i] ?? 0));
  return at !== undefined && (x[at] ?? 0) < (y[at] ?? 0);
}
