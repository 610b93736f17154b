import { mkdir, readlink, rename, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { explainSystemError } from "./pip-failure.ts";

/**
 * Makes `<cacheDir>/bin/<name>` a link to the program that the set-up chose, installed or fetched: what starts without the set-up (the verb
 * `up`, a test) finds it there by default. A rename, so that it is never missing.
 */
export async function linkPlainName(cacheDir: string, name: string, program: string): Promise<void> {
  const link = join(cacheDir, "bin", name);
  if ((await readlink(link).catch(() => undefined)) === program) return;
  const fresh = `${link}.${process.pid}`;
  try {
    await mkdir(dirname(link), { recursive: true });
    await symlink(program, fresh);
    await rename(fresh, link);
  } catch (error) {
    throw explainSystemError(name, link, error);
  }
}
