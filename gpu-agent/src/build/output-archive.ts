import { createReadStream, createWriteStream, readSync } from "node:fs";
import { chmod, lstat, mkdir, open, readdir } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { pipeline } from "node:stream/promises";
import { digestOfFile } from "../artifact/file-digest.ts";
import { JobError } from "../worker/job-error.ts";
import type { OutputFile } from "./build-cache.ts";
import { tarEntries, TreeError } from "./tar-reader.ts";
import { tarHeader } from "./tar-header.ts";

/** Everything that a build may write, together: objects, the program, and what it forgot to remove. */
export const OUT_BYTES = 512 * 2 ** 20;
/** With headers and padding of as many files as an archive may hold. */
export const ARCHIVE_BYTES = OUT_BYTES + 8 * 2 ** 20;
const PIECE_BYTES = 512 * 1024;

/** Plain files below `out`, hashed. Links and devices are refused: they would point out of the build when it is read as root. */
export async function collectOutputs(out: string): Promise<OutputFile[]> {
  const files: OutputFile[] = [];
  let bytes = 0;
  for (const entry of await readdir(out, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    const info = await lstat(path);
    if (!info.isFile() || info.nlink !== 1)
      throw new JobError("candidate", "build-bad-output", `the build made ${relative(out, path)}, which is not a plain file`);
    bytes += info.size;
    if (bytes > OUT_BYTES) throw new JobError("candidate", "disk-limit", `the build made more than ${OUT_BYTES} bytes`);
    files.push({ path: relative(out, path), sha256: await digestOfFile(path), bytes: info.size, executable: (info.mode & 0o100) !== 0 });
  }
  return files;
}

/** Writes a tar of the files that depends on their paths, bytes and executable bits alone. Throws JobError candidate `build-bad-output` for names that no reader takes. */
export async function packOutput(dir: string, files: readonly OutputFile[], to: string): Promise<void> {
  const sorted = [...files].sort((a, b) => (a.path < b.path ? -1 : 1));
  async function* blocks(): AsyncGenerator<Buffer> {
    for (const f of sorted) {
      yield tarHeader(f);
      yield* createReadStream(join(dir, f.path), { highWaterMark: PIECE_BYTES }) as AsyncIterable<Buffer>;
      yield Buffer.alloc(-f.bytes & 511);
    }
    yield Buffer.alloc(1024);
  }
  await pipeline(blocks, createWriteStream(to, { flags: "wx", mode: 0o600 }));
  await read(to, () => Promise.resolve());
}

/** Unpacks what `packOutput` wrote into an empty folder. It came over the network from a build that a stranger wrote: whatever is no plain file in that folder is refused. */
export async function unpackOutput(from: string, into: string): Promise<OutputFile[]> {
  const files: OutputFile[] = [];
  await read(from, async ({ path, executable, at, bytes }) => {
    const to = join(into, path);
    await mkdir(dirname(to), { recursive: true });
    const target = createWriteStream(to, { flags: "wx", mode: 0o644 });
    if (bytes > 0) await pipeline(createReadStream(from, { start: at, end: at + bytes - 1, highWaterMark: PIECE_BYTES }), target);
    else await new Promise<void>((done, failed) => target.once("error", failed).end(done));
    if (executable) await chmod(to, 0o755);
    files.push({ path, sha256: await digestOfFile(to), bytes, executable });
  });
  return files;
}

/** Looks at all of an archive before the first of its files. */
async function read(archive: string, take: (entry: ReturnType<typeof tarEntries>[number]) => Promise<void>): Promise<void> {
  await using file = await open(archive, "r");
  try {
    const { size } = await file.stat();
    const entries = tarEntries(size, (at, bytes) => {
      const piece = Buffer.alloc(bytes);
      return piece.subarray(0, readSync(file.fd, piece, 0, bytes, at));
    });
    if (entries.reduce((sum, e) => sum + e.bytes, 0) > OUT_BYTES)
      throw new TreeError("bad-tree", `its files are over the limit of ${OUT_BYTES} bytes`);
    for (const entry of entries) await take(entry);
  } catch (error) {
    if (error instanceof TreeError)
      throw new JobError("candidate", "build-bad-output", `what the build made can't be handed on: ${error.message}`);
    throw error;
  }
}
