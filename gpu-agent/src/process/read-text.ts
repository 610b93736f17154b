import { readFileSync } from "node:fs";

/** A small file's text; null where it is not there, or this user may not read it. */
export function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
