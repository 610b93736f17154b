import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Makes a folder that only this user reads, or narrows the rights of one that is there. */
export function openPrivateDir(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  chmodSync(path, 0o700);
}

/** Writes a whole file, mode 0600, that is on disk when this returns; a crash leaves the old file or the new one. */
export function writePrivateFile(path: string, bytes: Uint8Array): void {
  const draft = `${path}.${randomUUID()}.tmp`;
  writeFileSync(draft, bytes, { flag: "wx", mode: 0o600, flush: true });
  renameSync(draft, path);
}

/** The seed kept in `dir`, drawn at the first call. 64 hex digits; it never leaves the agent. */
export function privateSeed(dir: string): string {
  const path = join(dir, "seed");
  try {
    const seed = readFileSync(path, "utf8").trim();
    if (/^[0-9a-f]{64}$/.test(seed)) return seed;
    throw new Error(`${path} does not hold a seed`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const seed = randomBytes(32).toString("hex");
  writePrivateFile(path, Buffer.from(`${seed}\n`));
  return seed;
}
