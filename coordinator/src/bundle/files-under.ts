import { readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";

/** Paths of the files under a folder, relative to it, with slashes; links are left out. */
export async function filesUnder(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((e) => e.isFile()).map((e) => relative(folder, join(e.parentPath, e.name)).split(sep).join("/"));
}
