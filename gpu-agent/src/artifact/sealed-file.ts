import { randomUUID } from "node:crypto";
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { sha256 } from "@vibeserve/shared";
import { digestOfFile } from "./file-digest.ts";

const sealOf = (path: string): string => `${path}.sha256`;

/** Bytes of a cached file that still hash to what its seal, `<path>.sha256`, says. Null: absent, without a seal, or damaged; then it is made again. */
export async function readSealed(path: string): Promise<Buffer | null> {
  const [bytes, seal] = await Promise.all([path, sealOf(path)].map((p) => readFile(p).catch(() => null)));
  return bytes && seal?.toString() === sha256(bytes) ? bytes : null;
}

/** Lets `make` write a file beside `path`, moves it there and seals it. A kill half-way, or two writers at once, leave at worst a pair that does not match. */
export async function makeSealed(path: string, make: (draft: string) => Promise<unknown>): Promise<void> {
  const draft = `${path}.${randomUUID()}`;
  try {
    await make(draft);
    await writeFile(sealOf(draft), await digestOfFile(draft));
    await rename(sealOf(draft), sealOf(path));
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
}

export const writeSealed = (path: string, bytes: string): Promise<void> =>
  makeSealed(path, (draft) => writeFile(draft, bytes, { mode: 0o600 }));
