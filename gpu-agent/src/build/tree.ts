import { chmod, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ArtifactRef, Provenance } from "@vibeserve/shared";
import type { ArtifactStore } from "../worker/job-context.ts";
import { JobError } from "../worker/job-error.ts";
import { gitTreeHash } from "./git-tree-hash.ts";
import { MAX_TREE_BYTES, readTar, TreeError, type TreeFile } from "./tar-reader.ts";

/** A candidate's tree, as a job names it. */
export interface TreeRef {
  readonly treeDigest: string;
  readonly tree: ArtifactRef;
  readonly provenance: Provenance;
}

/** The files of the very tree that was named, in memory. Throws JobError: candidate `bad-tree`; harness `bad-archive`, `tree-mismatch`. */
export async function fetchTree(artifacts: ArtifactStore, ref: TreeRef): Promise<TreeFile[]> {
  if (ref.tree.bytes > MAX_TREE_BYTES)
    throw new JobError("candidate", "bad-tree", `the tree has ${ref.tree.bytes} bytes, over the limit of ${MAX_TREE_BYTES}`);
  const tar = await artifacts.get(ref.tree);
  try {
    const files = readTar(tar);
    const hash = gitTreeHash(files, ref.treeDigest.length === 64 ? "sha256" : "sha1");
    if (hash !== ref.treeDigest)
      throw new JobError("harness", "tree-mismatch", `the archive holds the tree ${hash}, not ${ref.treeDigest}`);
    return files;
  } catch (error) {
    if (error instanceof TreeError) throw new JobError(error.code === "bad-tree" ? "candidate" : "harness", error.code, error.message);
    throw error;
  }
}

/** Unpacks into a new folder `root`. */
export async function writeTree(root: string, files: readonly TreeFile[]): Promise<void> {
  await mkdir(root, { mode: 0o755 });
  for (const file of files) {
    const path = join(root, file.path);
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    await writeFile(path, file.bytes, { flag: "wx" });
    await chmod(path, file.executable ? 0o755 : 0o644);
  }
}
