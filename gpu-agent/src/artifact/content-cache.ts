import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import type { ArtifactRef } from "@vibeserve/shared";
import { digestOfFile } from "./file-digest.ts";

/** Trees, logs and samples of a long campaign, and some outputs of builds; the oldest unused entries go first. */
const MAX_BYTES = 2 * 2 ** 30;
const PIECE_BYTES = 512 * 1024;

/**
 * Files by the sha256 of their bytes, in a folder of the agent's own.
 * 1. An entry appears whole or not at all (written aside, synced, renamed); nothing stays of one that could not be written. 2. What is returned was hashed in
 * this call; an entry that does not match its name is deleted and counts as absent. 3. The folder stays near its bound.
 */
export class ContentCache {
  readonly #dir: string;
  readonly #maxBytes: number;

  constructor(dir: string, maxBytes = MAX_BYTES) {
    this.#dir = dir;
    this.#maxBytes = maxBytes;
  }

  put(bytes: Uint8Array): Promise<ArtifactRef> {
    return this.receive((write) => write(bytes));
  }

  async copy(path: string): Promise<ArtifactRef> {
    return this.receive(async (write) => {
      for await (const piece of createReadStream(path, { highWaterMark: PIECE_BYTES })) await write(piece as Buffer);
    });
  }

  /** Keeps what `fill` writes under the digest that it comes to, unless `check` throws at that. */
  async receive(
    fill: (write: (piece: Uint8Array) => Promise<void>) => Promise<void>,
    check: (found: ArtifactRef) => void = () => undefined,
  ): Promise<ArtifactRef> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const draft = join(this.#dir, `draft-${randomBytes(8).toString("hex")}`);
    const hash = createHash("sha256");
    let bytes = 0;
    try {
      await using file = await open(draft, "wx", 0o600);
      await fill(async (piece) => {
        hash.update(piece);
        bytes += piece.length;
        await file.writeFile(piece);
      });
      await file.sync();
      const ref = { digest: hash.digest("hex"), bytes };
      check(ref);
      await rename(draft, this.path(ref.digest));
      await this.#shrink();
      return ref;
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    }
  }

  /** Path of a verified file, or null. */
  async find(ref: ArtifactRef): Promise<string | null> {
    const path = this.path(ref.digest);
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

  /** Where an entry is, if it is. */
  path(digest: string): string {
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
    if (sum <= this.#maxBytes) return;
    entries.sort((a, b) => a.usedMs - b.usedMs);
    // Down to three quarters, so that a full cache is not swept at each write; what has just come stays.
    for (const e of entries.slice(0, -1)) {
      if (sum <= this.#maxBytes * 0.75) break;
      await rm(join(this.#dir, e.name), { force: true });
      sum -= e.bytes;
    }
  }
}
