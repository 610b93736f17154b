// Does for a small asset, described in a JSON file, what the set-up does for its own: fetch, check, unpack, put in place.
// Usage: fetch-small-asset.ts CACHE_DIR ASSET.json
import { readFileSync } from "node:fs";
import { ensureCached } from "../../coordinator/src/setup/cached-asset.ts";
import type { PinnedAsset } from "../../coordinator/src/setup/pinned-assets.ts";
import { verifyPython } from "../../coordinator/src/setup/python.ts";
import { SetupError } from "../../coordinator/src/setup/setup-error.ts";

const [cacheDir = "", assetFile = ""] = process.argv.slice(2);
try {
  const asset = JSON.parse(readFileSync(assetFile, "utf8")) as PinnedAsset;
  const python = (): ReturnType<typeof verifyPython> => verifyPython();
  const { path, note } = await ensureCached(asset, { cacheDir, log: () => undefined, signal: undefined, python });
  process.stdout.write(`${path}: ${note ?? "was there"}\n`);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`${error.report()}\n`);
  process.exitCode = 2;
}
