import { randomBytes } from "node:crypto";
import { chmod, copyFile, mkdir, readFile, readdir, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Digest, digestOf, parseJson } from "@vibeserve/shared";
import { z } from "zod";
import { digestOfFile } from "../artifact/file-digest.ts";
import { once } from "../process/once.ts";

const OutputFile = z.strictObject({ path: z.string(), sha256: Digest, bytes: z.int(), executable: z.boolean() });
export type OutputFile = z.infer<typeof OutputFile>;
const Entry = z.strictObject({ v: z.literal(1), key: Digest, files: z.array(OutputFile) });

/** A verified build. */
export interface BuildEntry {
  readonly dir: string;
  readonly buildDigest: string;
  readonly bytes: number;
  readonly files: readonly OutputFile[];
}

/** A build is a few MB; this holds the candidates of many campaigns. */
const MAX_ENTRIES = 400;
/** Of builds with weights or kernels of their own, 200 MB each, some tens. */
const MAX_BYTES = 6 * 2 ** 30;
/** What a killed life left half-done; nothing takes so long to be written. */
const DRAFT_MS = 3_600_000;

/** Identity of what a build made: names, modes and contents. */
export const digestOfOutputs = (files: readonly OutputFile[]): string =>
  digestOf([...files].sort((a, b) => (a.path < b.path ? -1 : 1)).map((f) => [f.path, f.sha256, f.executable]));

/**
 * What builds made, by key (I9), in a folder of the agent's own. Everything is hashed again on each read: an entry that does not match its list is
 * deleted, and the caller builds again. Files are read-only; what was not used for longest goes when there is too much.
 */
export class BuildCache {
  readonly #dir: string;
  readonly #receiving = new Map<string, Promise<BuildEntry>>();
  readonly #maxBytes: number;

  constructor(dir: string, maxBytes = MAX_BYTES) {
    this.#dir = dir;
    this.#maxBytes = maxBytes;
  }

  async find(key: string): Promise<BuildEntry | null> {
    const dir = join(this.#dir, key);
    const list = await readFile(`${dir}.json`, "utf8").catch(() => null);
    if (list === null) return null;
    const entry = parseEntry(list);
    if (entry?.key === key && (await matches(dir, entry.files))) {
      const now = new Date();
      await utimes(`${dir}.json`, now, now).catch(() => undefined);
      return { dir, buildDigest: digestOfOutputs(entry.files), bytes: sizeOf(entry.files), files: entry.files };
    }
    await this.#drop(key);
    return null;
  }

  /** The build of that digest, whatever it was built from; null: there is none. */
  async withDigest(buildDigest: string): Promise<BuildEntry | null> {
    for (const name of (await readdir(this.#dir).catch(() => [])).filter((file) => file.endsWith(".json"))) {
      const files = parseEntry(await readFile(join(this.#dir, name), "utf8"))?.files ?? [];
      const entry = digestOfOutputs(files) === buildDigest ? await this.find(name.slice(0, -".json".length)) : null;
      if (entry) return entry;
    }
    return null;
  }

  /** Takes copies of these files of `from`. */
  async add(key: string, from: string, files: readonly OutputFile[]): Promise<BuildEntry> {
    return this.receive(key, async (draft) => {
      for (const f of files) {
        await mkdir(dirname(join(draft, f.path)), { recursive: true });
        await copyFile(join(from, f.path), join(draft, f.path));
      }
      return files;
    });
  }

  /** Keeps what `fill` puts into a new folder: the files that it returns. Nothing stays where it throws. Who comes for a key that is being received gets that. */
  async receive(key: string, fill: (draft: string) => Promise<readonly OutputFile[]>): Promise<BuildEntry> {
    return once(this.#receiving, key, () => this.#receive(key, fill));
  }

  async #receive(key: string, fill: (draft: string) => Promise<readonly OutputFile[]>): Promise<BuildEntry> {
    const draft = join(this.#dir, `draft-${randomBytes(8).toString("hex")}`);
    const list = join(this.#dir, `${key}.json`);
    try {
      await mkdir(draft, { recursive: true });
      const files = await fill(draft);
      for (const f of files) await chmod(join(draft, f.path), f.executable ? 0o555 : 0o444);
      await chmod(draft, 0o755);
      // Whoever asked for it just before this began may be at work with it.
      const there = await this.find(key);
      if (there) {
        await rm(draft, { recursive: true, force: true });
        return there;
      }
      await this.#drop(key);
      await rename(draft, join(this.#dir, key));
      await writeFile(`${list}.draft`, JSON.stringify({ v: 1, key, files }), { mode: 0o600 });
      await rename(`${list}.draft`, list);
    } catch (error) {
      for (const half of [draft, `${list}.draft`, join(this.#dir, key)]) await rm(half, { recursive: true, force: true });
      throw error;
    }
    await this.#shrink(key);
    const entry = await this.find(key);
    if (entry === null) throw new Error(`the build ${key} did not survive being written`);
    return entry;
  }

  async #drop(key: string): Promise<void> {
    await rm(join(this.#dir, `${key}.json`), { force: true });
    await rm(join(this.#dir, key), { recursive: true, force: true });
  }

  async #shrink(keep: string): Promise<void> {
    const entries = [];
    for (const name of await readdir(this.#dir)) {
      const path = join(this.#dir, name);
      const info = await stat(path).catch(() => null);
      if (info === null) continue;
      if (name.startsWith("draft-") && Date.now() - info.mtimeMs > DRAFT_MS) await rm(path, { recursive: true, force: true });
      if (!name.endsWith(".json")) continue;
      const files = parseEntry(await readFile(path, "utf8").catch(() => ""))?.files ?? [];
      entries.push({ key: name.slice(0, -".json".length), bytes: sizeOf(files), usedMs: info.mtimeMs });
    }
    entries.sort((a, b) => a.usedMs - b.usedMs);
    let left = { count: entries.length, bytes: entries.reduce((sum, e) => sum + e.bytes, 0) };
    for (const { key, bytes } of entries) {
      if (left.count <= MAX_ENTRIES && left.bytes <= this.#maxBytes) break;
      if (key === keep) continue;
      await this.#drop(key);
      left = { count: left.count - 1, bytes: left.bytes - bytes };
    }
  }
}

const sizeOf = (files: readonly OutputFile[]): number => files.reduce((sum, f) => sum + f.bytes, 0);

/** Half written or tampered with is as good as absent. */
const parseEntry = (text: string): z.infer<typeof Entry> | null => Entry.safeParse(parseJson(text)).data ?? null;

async function matches(dir: string, files: readonly OutputFile[]): Promise<boolean> {
  const present = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  if (present.filter((e) => !e.isDirectory()).length !== files.length) return false;
  for (const f of files) if ((await digestOfFile(join(dir, f.path)).catch(() => "")) !== f.sha256) return false;
  return true;
}
