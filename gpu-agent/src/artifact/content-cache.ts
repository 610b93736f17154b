import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import type { ArtifactRef } from "@vibeserve/shared";
import { digestOfFile } from "./file-digest.ts";

/** Trees, logs and samples of a long campaign; the oldest unused entries go first. */
const CACHE_BYTES = 2 * 2 ** 30;

/**
 * Files by the sha256 of their bytes, in a folder of the agent's own.
 * 1. An entry appears whole or not at all (written aside, synced, renamed). 2. What is returned was hashed in this call; an entry that does not match its
 * name is deleted and counts as absent. 3. The folder stays near its bound.
 */
export class ContentCache {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async put(bytes: Uint8Array): Promise<ArtifactRef> {
    const digest = createHash("sha256").update(bytes).digest("hex");
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const draft = join(this.#dir, `draft-${randomBytes(8).toString("hex")}`);
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, this.#path(digest));
    await this.#shrink();
    return { digest, bytes: bytes.length };
  }

  /** Path of a verified file, or null. */
  async find(ref: ArtifactRef): Promise<string | null> {
    const path = this.#path(ref.digest);
    const info = await stat(path).catch(() => null);
    if (info === null) return null;
    if (info.size === ref.bytes && (await digestOfFile(path)) === ref.digest) {
      const now = new Date();
      await utimes(path, now, now).catch(() => undefined);
      return path;
    }
    await rm(path, { force: true });
    return null;
  }

  #path(digest: string): string {
    if (!/^[0-9a-f]{64}$/.test(digest)) throw new TypeError(`not a digest: ${digest}`);
    return join(this.#dir, digest);
  }

  async #shrink(): Promise<void> {
    const entries = [];
    let sum = 0;
    for (const name of await readdir(this.#dir)) {
      const info = await stat(join(this.#dir, name)).catch(() => null);
      if (info === null) continue;
      sum += info.size;
      entries.push({ name, bytes: info.size, usedMs: info.mtimeMs });
    }
    if (sum <= CACHE_BYTES) return;
    entries.sort((a, b) => a.usedMs - b.usedMs);
    // Down to three quarters, so that a full cache is not swept at each write.
    for (const e of entries) {
      if (sum <= CACHE_BYTES * 0.75) break;
      await rm(join(this.#dir, e.name), { force: true });
      sum -= e.bytes;
    }
  }
}
