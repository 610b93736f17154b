import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A new folder that goes, with all in it, at the end of the block: `<prefix>XXXXXX` in `dir`. Default: the temporary folder, with a mode by which others pass through and can't list it. */
export async function tempFolder(prefix: string, dir = tmpdir()): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(dir, prefix));
  if (dir === tmpdir()) await chmod(path, 0o711);
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
