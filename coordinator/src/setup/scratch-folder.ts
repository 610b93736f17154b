import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { identityOf } from "../process/identity.ts";

/**
 * A folder under the cache (so that what is made in it can be renamed into place) that is gone when `use` ends. Its name carries the
 * process id: what a killed process left is swept by the next one that needs a folder.
 */
export async function withScratchFolder<T>(cacheDir: string, name: string, use: (folder: string) => Promise<T>): Promise<T> {
  const root = join(cacheDir, "tmp");
  await mkdir(root, { recursive: true });
  await sweep(root);
  const folder = await mkdtemp(join(root, `${name}-${process.pid}-`));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function sweep(root: string): Promise<void> {
  for (const entry of await readdir(root)) {
    const pid = Number(/-(\d+)-\w+$/.exec(entry)?.[1] ?? Number.NaN);
    if (Number.isInteger(pid) && identityOf(pid) === null) await rm(join(root, entry), { recursive: true, force: true });
  }
}
