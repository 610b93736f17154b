import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { AssetContext } from "./asset-context.ts";
import { ensureBubblewrap } from "./bubblewrap.ts";
import { hasPart, missingPart } from "./bundle-part.ts";
import { ensureCached, placeOf } from "./cached-asset.ts";
import { ensureCompiler } from "./compiler.ts";
import { ensureGit } from "./git.ts";
import { ensureNatsServer } from "./nats-server.ts";
import { digestsFor, digestsHere, weightsAsset, type PinnedAsset } from "./pinned-assets.ts";
import { explainSystemError } from "./pip-failure.ts";
import { linkPlainName } from "./plain-name.ts";
import { findPython, verifyPython, type Python } from "./python.ts";
import { step, type Log } from "./step-log.ts";

/** What a campaign on this machine needs beside Node. Paths are absolute. */
export interface Assets {
  natsServer: string;
  /** Null where no sandbox can be made; the log says why. */
  bwrap: string | null;
  /** The GGUF file; null only in an offline bundle without its weights archive, which serves other checkpoints all the same. */
  weights: string | null;
  /** Argv prefix of a C++20 compiler. */
  cxx: string[];
  /** Null when it is not installed, which is an error only while something must be fetched. Baselines need it. */
  python: string | null;
}

export interface EnsureAssetsOptions {
  /** From readSetupConfig. Made if missing. */
  cacheDir: string;
  log: Log;
  signal?: AbortSignal | undefined;
  /** `$CXX`, tried before c++, g++ and clang++. */
  cxx?: string | undefined;
  /** Folder of the offline bundle that this runs from. */
  bundle?: string | undefined;
}

/**
 * Finds or fetches everything, one log line a step. Idempotent: what is there is only checked, and no network is touched. Stopped at
 * any moment it goes on where it was, at the granularity of one asset. Several processes may run it at once. Rejects with a SetupError,
 * or with the signal's reason.
 */
export async function ensureAssets({ cacheDir, log, signal, cxx, bundle }: EnsureAssetsOptions): Promise<Assets> {
  try {
    await mkdir(cacheDir, { recursive: true });
  } catch (error) {
    throw explainSystemError("cache folder", cacheDir, error);
  }
  let python: Promise<Python> | undefined;
  const context: AssetContext = { cacheDir, log, signal, bundle, python: () => (python ??= verifyPython(signal)) };
  // First: to look costs nothing, and without it a campaign gets no further than its first draft.
  await step(log, "git", () => ensureGit(signal));
  const natsServer = await step(log, "nats-server", () => ensureNatsServer(context));
  await linkPlainName(cacheDir, "nats-server", natsServer);
  const bwrap = await step(log, "bubblewrap", () => ensureBubblewrap(context));
  const weights = await step(log, "weights", () => ensureWeights(context));
  const compiler = await step(log, "C++ compiler", () => ensureCompiler(context, cxx));
  return { natsServer, bwrap, weights, cxx: compiler, python: (await findPython(signal))?.path ?? null };
}

async function ensureWeights(context: AssetContext): Promise<{ value: string | null; note?: string }> {
  if (context.bundle !== undefined && !hasPart(weightsAsset, context.bundle) && !existsSync(placeOf(weightsAsset, context.cacheDir)))
    return { value: null, note: `none: ${missingPart(weightsAsset).fix}, or make a small random model with \`vibeserve checkpoint\`` };
  const { path, note } = await ensureCached(weightsAsset, context);
  return note === undefined ? { value: path } : { value: path, note };
}

/**
 * One part of a product that is to be packed: fetched into the user's cache if it is not there, where another platform's has a folder of its own. Returns its
 * place. Rejects with a SetupError.
 */
export async function ensureAsset(asset: PinnedAsset, platform: string, { cacheDir, log, signal }: EnsureAssetsOptions): Promise<string> {
  const own = digestsFor(asset, platform) === digestsHere(asset);
  const folder = own ? cacheDir : join(cacheDir, platform);
  await mkdir(folder, { recursive: true });
  return (await ensureCached(asset, { cacheDir: folder, platform, log, signal, bundle: undefined, python: () => verifyPython(signal) }))
    .path;
}
