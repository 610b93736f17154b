import { constants, cpSync, existsSync } from "node:fs";
import { join } from "node:path";
import { packageVersion } from "../version.ts";
import { HERE, type PinnedAsset } from "./pinned-assets.ts";
import { SetupError } from "./setup-error.ts";

/** The archives of an offline bundle. All unpack into one folder: the others add to what the core has brought. */
export const PARTS = ["core", "weights", "wheels", "npm", "compiler", "images"] as const;
export type Part = (typeof PARTS)[number];

/** Folder that a bundle unpacks into, the same for all its archives; `platform` as in "linux-x64". */
export const bundleName = (platform: string): string => `vibeserve-${packageVersion()}-${platform}`;

export const archiveName = (part: Part, platform = HERE): string => `${bundleName(platform)}-${part}.tar.gz`;

/** Where a bundle keeps what the set-up would otherwise fetch: under `parts/`, at the places that it has in a user's cache. */
const placeIn = (asset: PinnedAsset, bundle: string): string => join(bundle, "parts", asset.place);

export const hasPart = (asset: PinnedAsset, bundle: string): boolean => existsSync(placeIn(asset, bundle));

/** What a fetch comes to in a bundle that lacks the part. */
export function missingPart(asset: PinnedAsset): SetupError {
  const archive = archiveName(asset.part);
  return new SetupError(
    asset.name,
    `this is an offline bundle, and ${archive} is not unpacked`,
    `unpack ${archive} where the core was unpacked`,
  );
}

/** Copies a part into an empty folder of the caller's (sharing blocks where the file system can) and returns the copy. Throws SetupError where it is not there. */
export function copyPart(asset: PinnedAsset, bundle: string, folder: string): string {
  if (!hasPart(asset, bundle)) throw missingPart(asset);
  const copy = join(folder, "part");
  cpSync(placeIn(asset, bundle), copy, { recursive: true, mode: constants.COPYFILE_FICLONE });
  return copy;
}
