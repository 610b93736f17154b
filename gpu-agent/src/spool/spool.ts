import { mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { JobResult, parseJson, subjects } from "@vibeserve/shared";
import { z } from "zod";

/** A result on disk. */
export interface Spooled {
  readonly file: string;
  readonly result: JobResult;
}

/** A file of the spool. */
export const SpoolFile = z.strictObject({ v: z.literal(1), result: JobResult });

/** Results that JetStream has not acknowledged yet, one synced file each, so that an agent killed at any moment loses none. In a folder of the agent's own, 0700. */
export class Spool {
  readonly #dir: string;
  #serial = 0;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  static async open(dir: string): Promise<Spool> {
    await mkdir(join(dir, "pending"), { recursive: true, mode: 0o700 });
    await mkdir(join(dir, "unreadable"), { recursive: true, mode: 0o700 });
    return new Spool(dir);
  }

  /** Returns once the result would survive a power cut. */
  async add(result: JobResult): Promise<Spooled> {
    const { jobId, attempt, leaseToken } = result;
    const name = `${Date.now()}-${String(this.#serial++).padStart(4, "0")}-${jobId}.${attempt}.${leaseToken}.json`;
    const file = join(this.#dir, "pending", name);
    await writeFile(`${file}.draft`, JSON.stringify({ v: 1, result }), { mode: 0o600, flush: true });
    await rename(`${file}.draft`, file);
    await syncFolder(join(this.#dir, "pending"));
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
      const stored = SpoolFile.safeParse(parseJson(await readFile(file, "utf8"))).data;
      if (stored === undefined) await rename(file, join(this.#dir, "unreadable", name));
      else found.push({ file, result: stored.result });
    }
    return found;
  }

  /** JetStream has it. */
  async sent(spooled: Spooled): Promise<void> {
    await rm(spooled.file, { force: true });
  }
}

export const resultSubject = (r: JobResult): string => subjects.result(r.agentId, r.campaign);

/** A rename is safe only when its folder is on disk too. */
async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}
