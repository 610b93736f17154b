import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { CheckSpec } from "@vibeserve/shared";
import { digestOfFile } from "../artifact/file-digest.ts";
import { JobError } from "./job-error.ts";

export type ModelRef = CheckSpec["model"];

/**
 * Weights in the asset cache, found by file name and believed by digest: the bytes are hashed before each job that uses them (0.1 s for 98 MB). Throws
 * JobError device `weights-missing` or `weights-damaged`, with the fix in its message.
 */
export async function verifiedWeights(cacheDir: string, model: ModelRef): Promise<string> {
  if (basename(model.file) !== model.file) throw new JobError("harness", "bad-model", `"${model.file}" is not a file name`);
  const path = join(cacheDir, "weights", model.file);
  if ((await stat(path).catch(() => null)) === null)
    throw new JobError("device", "weights-missing", `there are no weights at ${path}: run the set-up (npm start) on this machine`);
  const found = await digestOfFile(path);
  if (found !== model.sha256)
    throw new JobError("device", "weights-damaged", `${path} has sha256 ${found}, not ${model.sha256}: remove it and run the set-up again`);
  return path;
}

/** The weights in the cache, if there is only one file of them. */
export async function onlyWeights(cacheDir: string): Promise<ModelRef | null> {
  const files = (await readdir(join(cacheDir, "weights")).catch(() => [])).filter((name) => name.endsWith(".gguf"));
  const [file] = files;
  if (file === undefined || files.length > 1) return null;
  return { name: file, file, sha256: await digestOfFile(join(cacheDir, "weights", file)) };
}
