import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

/** The file of a program in these folders, else on PATH. Null where it is not, which is said: `skipped` names the tests, and how to get it. */
export function findProgram(name: string, folders: readonly string[], skipped: string): string | null {
  const dirs = [...folders, ...(process.env["PATH"] ?? "").split(delimiter)];
  const file = dirs.map((dir) => join(dir, name)).find((path) => existsSync(path)) ?? null;
  if (file === null) process.stderr.write(`skipped, since there is no ${name}: ${skipped}\n`);
  return file;
}
