import { readdir, stat } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { folderDigest, type CheckSpec } from "@vibeserve/shared";
import { digestOfFile } from "../artifact/file-digest.ts";
import { JobError } from "./job-error.ts";

export type ModelRef = CheckSpec["model"];

/**
 * Weights in the asset cache, found by the name of a file or folder and believed by digest: a file's bytes are hashed before each job that uses them (0.1 s for
 * 98 MB), a folder's when they may have changed. Throws
 * JobError device `weights-missing` or `weights-damaged`, with the fix in its message.
 */
export async function verifiedWeights(cacheDir: string, model: ModelRef): Promise<string> {
  if (basename(model.file) !== model.file) throw new JobError("harness", "bad-model", `"${model.file}" is not a file name`);
  const path = join(cacheDir, "weights", model.file);
  if ((await stat(path).catch(() => null)) === null)
    throw new JobError(
      "device",
      "weights-missing",
      `there are no weights at ${path}: bring them, or run the set-up on this machine (vibeserve start; npm start in a checkout); in Kubernetes set the chart's weights.existingClaim or weights.hostPath`,
    );
  const found = model.format === "hf" ? await digestOfFolder(path) : await digestOfFile(path);
  if (found !== model.sha256)
    throw new JobError("device", "weights-damaged", `${path} has sha256 ${found}, not ${model.sha256}: remove it and bring it again`);
  return path;
}

/** Digests of large files by path, with what they stood for: a checkpoint of 60 GB is read once, and again when a file's size, time or inode differs. */
const known = new Map<string, { readonly stamp: string; readonly sha256: string }>();

/** folderDigest of the plain files in a checkpoint's folder, but for those whose path has a part that begins with ".". */
async function digestOfFolder(folder: string): Promise<string> {
  const files: [string, string][] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const name = relative(folder, join(entry.parentPath, entry.name));
    if (!entry.isFile() || /(^|\/)\./.test(name)) continue;
    const path = join(folder, name);
    const { size, mtimeMs, ctimeMs, ino } = await stat(path);
    const stamp = [size, mtimeMs, ctimeMs, ino].join();
    const before = known.get(path);
    const sha256 = before?.stamp === stamp ? before.sha256 : await digestOfFile(path);
    known.set(path, { stamp, sha256 });
    files.push([name, sha256]);
  }
  return folderDigest(files);
}

/** The weights in the cache, if there is only one file of them. */
export async function onlyWeights(cacheDir: string): Promise<ModelRef | null> {
  const files = (await readdir(join(cacheDir, "weights")).catch(() => [])).filter((name) => name.endsWith(".gguf"));
  const [file] = files;
  if (file === undefined || files.length > 1) return null;
  return { name: file, file, sha256: await digestOfFile(join(cacheDir, "weights", file)) };
}
