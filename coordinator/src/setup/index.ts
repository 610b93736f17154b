export { readSetupConfig, xdgFolder, type SetupConfig } from "./config.ts";
export { archiveName, bundleName, missingPart, PARTS, type Part } from "./bundle-part.ts";
export { ensureAsset, ensureAssets, type Assets, type EnsureAssetsOptions } from "./ensure-assets.ts";
export { sha256File } from "./file-digest.ts";
export { findProgram } from "./system-tool.ts";
export { placeOf } from "./cached-asset.ts";
export {
  bubblewrapAsset,
  digestsFor,
  digestsHere,
  HERE,
  macNodeAsset,
  natsServerAsset,
  weightsAsset,
  zigAsset,
  type PinnedAsset,
} from "./pinned-assets.ts";
export { findPython, verifyPython, type Python } from "./python.ts";
export { pipPlatform } from "./wheel.ts";
export { SetupError } from "./setup-error.ts";
