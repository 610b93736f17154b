import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { JobResult, subjects } from "@vibeserve/shared";
import { z } from "zod";

/** A result on disk. */
export interface Spooled {
  readonly file: string;
  readonly result: JobResult;
}

/** A file of the spool. */
export const SpoolFile = z.strictObject({ v: z.literal(1), result: JobResult });
/** Attempts that were answered: enough to recognise a job that is delivered again because its acknowledgement was lost. */
const ANSWERED = 256;

/**
 * Results that JetStream has not acknowledged yet, one synced file each, so that an agent killed at any moment loses none; and the names of the last
 * attempts that were answered, so that none of them is done again. In a folder of the agent's own, 0700: it is read once, and whether an attempt was finished,
 * which every job asks on its way here, is answered from memory.
 */
export class Spool {
  readonly #dir: string;
  /** Names of attempts whose result is not sent yet; of those that were answered, oldest first. */
  readonly #unsent = new Set<string>();
  readonly #answered = new Set<string>();
  #serial = 0;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  static async open(dir: string): Promise<Spool> {
    const spool = new Spool(dir);
    await mkdir(join(dir, "pending"), { recursive: true, mode: 0o700 });
    await mkdir(join(dir, "answered"), { recursive: true, mode: 0o700 });
    await mkdir(join(dir, "unreadable"), { recursive: true, mode: 0o700 });
    for (const { result } of await spool.pending()) spool.#unsent.add(nameOf(result));
    const answered = join(dir, "answered");
    const aged = (await readdir(answered)).map(async (name) => ({ name, at: (await stat(join(answered, name))).mtimeMs }));
    for (const { name } of (await Promise.all(aged)).sort((a, b) => a.at - b.at)) spool.#answered.add(name);
    return spool;
  }

  /** Returns once the result would survive a power cut. */
  async add(result: JobResult): Promise<Spooled> {
    const name = `${Date.now()}-${String(this.#serial++).padStart(4, "0")}-${msgId(result)}.json`;
    const file = join(this.#dir, "pending", name);
    await writeSynced(`${file}.draft`, JSON.stringify({ v: 1, result }));
    await rename(`${file}.draft`, file);
    await syncFolder(join(this.#dir, "pending"));
    this.#unsent.add(nameOf(result));
    return { file, result };
  }

  /** What is still to be sent, oldest first. A file that can't be read is put aside: it must not block the others. */
  async pending(): Promise<Spooled[]> {
    const found: Spooled[] = [];
    for (const name of (await readdir(join(this.#dir, "pending"))).sort()) {
      const file = join(this.#dir, "pending", name);
      if (name.endsWith(".draft")) {
        await rm(file, { force: true });
        continue;
      }
      const stored = parse(await readFile(file, "utf8"));
      if (stored === null) await rename(file, join(this.#dir, "unreadable", name));
      else found.push({ file, result: stored });
    }
    return found;
  }

  /** JetStream has it. */
  async sent(spooled: Spooled): Promise<void> {
    const name = nameOf(spooled.result);
    await writeSynced(join(this.#dir, "answered", name), "");
    this.#answered.add(name);
    await rm(spooled.file, { force: true });
    this.#unsent.delete(name);
    for (const old of [...this.#answered].slice(0, -ANSWERED)) {
      await rm(join(this.#dir, "answered", old), { force: true });
      this.#answered.delete(old);
    }
  }

  /** This attempt was finished here: its result is sent, or still in the spool. */
  isAnswered(jobId: string, attempt: number): boolean {
    const name = nameOf({ jobId, attempt });
    return this.#answered.has(name) || this.#unsent.has(name);
  }
}

/** JetStream drops a second copy with the same id. */
export const msgId = (r: JobResult): string => `${r.jobId}.${r.attempt}.${r.leaseToken}`;
export const resultSubject = (r: JobResult): string => subjects.result(r.agentId, r.campaign);

const nameOf = ({ jobId, attempt }: { jobId: string; attempt: number }): string => `${jobId}.${attempt}`;

function parse(text: string): JobResult | null {
  try {
    return SpoolFile.parse(JSON.parse(text)).result;
  } catch {
    return null;
  }
}

async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** A rename is safe only when its folder is on disk too. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
