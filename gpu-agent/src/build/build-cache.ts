import { randomBytes } from "node:crypto";
import { chmod, copyFile, mkdir, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Digest, digestOf } from "@vibeserve/shared";
import { z } from "zod";
import { digestOfFile } from "../artifact/file-digest.ts";

const OutputFile = z.strictObject({ path: z.string(), sha256: Digest, bytes: z.int(), executable: z.boolean() });
export type OutputFile = z.infer<typeof OutputFile>;
const Entry = z.strictObject({ v: z.literal(1), key: Digest, files: z.array(OutputFile) });

/** A verified build. */
export interface BuildEntry {
  readonly dir: string;
  readonly buildDigest: string;
  readonly bytes: number;
}

/** A build is a few MB; this holds the candidates of many campaigns. */
const MAX_ENTRIES = 400;

/** Identity of what a build made: names, modes and contents. */
export const digestOfOutputs = (files: readonly OutputFile[]): string =>
  digestOf([...files].sort((a, b) => (a.path < b.path ? -1 : 1)).map((f) => [f.path, f.sha256, f.executable]));

/**
 * What builds made, by key (I9), in a folder of the agent's own. Everything is hashed again on each read: an entry that does not match its list is
 * deleted, and the caller builds again.
 */
export class BuildCache {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async find(key: string): Promise<BuildEntry | null> {
    const dir = join(this.#dir, key);
    const list = await readFile(`${dir}.json`, "utf8").catch(() => null);
    if (list === null) return null;
    const entry = parseEntry(list);
    if (entry?.key === key && (await matches(dir, entry.files)))
      return { dir, buildDigest: digestOfOutputs(entry.files), bytes: entry.files.reduce((sum, f) => sum + f.bytes, 0) };
    await this.#drop(key);
    return null;
  }

  /** The build of that digest, whatever it was built from, with its files' names; null: there is none. */
  async withDigest(buildDigest: string): Promise<(BuildEntry & { readonly paths: readonly string[] }) | null> {
    for (const name of (await readdir(this.#dir).catch(() => [])).filter((file) => file.endsWith(".json"))) {
      const files = parseEntry(await readFile(join(this.#dir, name), "utf8"))?.files ?? [];
      const entry = digestOfOutputs(files) === buildDigest ? await this.find(name.slice(0, -".json".length)) : null;
      if (entry) return { ...entry, paths: files.map((f) => f.path) };
    }
    return null;
  }

  /** Takes copies of these files of `from`. */
  async add(key: string, from: string, files: readonly OutputFile[]): Promise<BuildEntry> {
    const draft = join(this.#dir, `draft-${randomBytes(8).toString("hex")}`);
    for (const f of files) {
      const to = join(draft, f.path);
      await mkdir(dirname(to), { recursive: true });
      await copyFile(join(from, f.path), to);
      await chmod(to, f.executable ? 0o755 : 0o644);
    }
    await chmod(draft, 0o755);
    await this.#drop(key);
    await rename(draft, join(this.#dir, key));
    const list = join(this.#dir, `${key}.json`);
    await writeFile(`${list}.draft`, JSON.stringify({ v: 1, key, files }), { mode: 0o600 });
    await rename(`${list}.draft`, list);
    await this.#shrink();
    const entry = await this.find(key);
    if (entry === null) throw new Error(`the build ${key} did not survive being written`);
    return entry;
  }

  async #drop(key: string): Promise<void> {
    await rm(join(this.#dir, `${key}.json`), { force: true });
    await rm(join(this.#dir, key), { recursive: true, force: true });
  }

  async #shrink(): Promise<void> {
    const lists = (await readdir(this.#dir)).filter((name) => name.endsWith(".json"));
    if (lists.length <= MAX_ENTRIES) return;
    const aged = await Promise.all(lists.map(async (name) => ({ name, at: (await stat(join(this.#dir, name))).mtimeMs })));
    aged.sort((a, b) => a.at - b.at);
    for (const { name } of aged.slice(0, lists.length - MAX_ENTRIES)) await this.#drop(name.slice(0, -".json".length));
  }
}

function parseEntry(text: string): z.infer<typeof Entry> | null {
  try {
    return Entry.parse(JSON.parse(text));
  } catch {
    // Half written or tampered with: as good as absent.
    return null;
  }
}

async function matches(dir: string, files: readonly OutputFile[]): Promise<boolean> {
  const present = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  if (present.filter((e) => !e.isDirectory()).length !== files.length) return false;
  for (const f of files) if ((await digestOfFile(join(dir, f.path)).catch(() => "")) !== f.sha256) return false;
  return true;
}
