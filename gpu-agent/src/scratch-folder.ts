import { rmSync } from "node:fs";
import { chmod, mkdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { useTemporaryFolder } from "./config.ts";

/** A unix socket's path may have 107 bytes, on macOS 103; ours adds 34 to this folder's. */
const LONGEST = 69;

/**
 * This agent's own temporary folder, emptied: what a killed life left there goes, and it goes itself with this process. Others may pass through it (a candidate run as another user reaches its
 * own folder below), but not list it.
 */
export async function openScratchFolder(tag: string): Promise<string> {
  const base = tmpdir().length > LONGEST ? "/tmp" : tmpdir();
  const dir = join(base, `vs-${tag}`);
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { mode: 0o711 });
  await chmod(dir, 0o711);
  useTemporaryFolder(dir);
  // Before the data folder's lock, whose release lets the next life in.
  process.prependOnceListener("exit", () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
