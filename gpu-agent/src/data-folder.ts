import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { sha256 } from "@vibeserve/shared";

/** The agent's private folder. Nothing in it is ever shown to a candidate, except one build's folder, read-only. */
export interface DataFolder {
  readonly root: string;
  /** Short name of this folder, for what must be told apart from other agents' on this machine. */
  readonly tag: string;
  readonly artifacts: string;
  readonly builds: string;
  readonly probe: string;
  readonly spool: string;
  /** The evaluator's: hidden pools, the reference's executable, load plans. */
  readonly evaluator: string;
}

/** Makes it, mode 0700, whatever the umask. */
export async function openDataFolder(root: string): Promise<DataFolder> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  await chmod(root, 0o700);
  const folder: DataFolder = {
    root,
    tag: sha256(root).slice(0, 8),
    artifacts: join(root, "artifacts"),
    builds: join(root, "builds"),
    probe: join(root, "probe"),
    spool: join(root, "spool"),
    evaluator: join(root, "evaluator"),
  };
  for (const dir of [folder.artifacts, folder.builds, folder.probe, folder.spool, folder.evaluator])
    await mkdir(dir, { recursive: true, mode: 0o700 });
  return folder;
}
