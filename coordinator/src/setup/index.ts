export { readSetupConfig, xdgFolder, type SetupConfig } from "./config.ts";
export { ensureAssets, type Assets, type EnsureAssetsOptions } from "./ensure-assets.ts";
export { sha256File } from "./file-digest.ts";
export { findProgram } from "./system-tool.ts";
export { placeOf } from "./cached-asset.ts";
export { bubblewrapAsset, natsServerAsset, weightsAsset, zigAsset, type PinnedAsset } from "./pinned-assets.ts";
export { findPython, verifyPython, type Python } from "./python.ts";
export { SetupError } from "./setup-error.ts";
export { toolVersions, type ToolVersion } from "./tool-versions.ts";
