import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";

/** Lower-case hex sha256 of a file, read in pieces. Rejects with the file system's error. */
export async function sha256File(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

const stampSchema = z.object({ size: z.number(), mtimeMs: z.number(), inode: z.number(), sha256: z.string() });

/**
 * The digest of a file that rarely changes, without reading it each time: it is remembered with the file's size, time and inode in
 * `stampFolder`, and computed anew when any of them differs. Undefined when there is no such file.
 */
export async function stampedSha256(path: string, stampFolder: string): Promise<string | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile() !== true) return undefined;
  const stampPath = join(stampFolder, `${basename(path)}.${createHash("sha256").update(path).digest("hex").slice(0, 12)}.json`);
  const known = await readStamp(stampPath);
  const now = { size: found.size, mtimeMs: found.mtimeMs, inode: found.ino };
  if (known?.size === now.size && known.mtimeMs === now.mtimeMs && known.inode === now.inode) return known.sha256;
  const sha256 = await sha256File(path);
  await writeStamp(stampPath, { ...now, sha256 });
  return sha256;
}

async function writeStamp(path: string, stamp: z.infer<typeof stampSchema>): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    const fresh = `${path}.${process.pid}`;
    await writeFile(fresh, JSON.stringify(stamp));
    await rename(fresh, path);
  } catch {
    // A cache that cannot be written (a read-only image, a full disk) is read in full each time instead.
  }
}

async function readStamp(path: string): Promise<z.infer<typeof stampSchema> | undefined> {
  try {
    return stampSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return undefined; // none yet, or not ours: the file itself decides
  }
}
