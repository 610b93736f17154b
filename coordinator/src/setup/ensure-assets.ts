import { mkdir } from "node:fs/promises";
import type { AssetContext } from "./asset-context.ts";
import { ensureBubblewrap } from "./bubblewrap.ts";
import { ensureCached } from "./cached-asset.ts";
import { ensureCompiler } from "./compiler.ts";
import { ensureGit } from "./git.ts";
import { ensureNatsServer } from "./nats-server.ts";
import { weightsAsset } from "./pinned-assets.ts";
import { explainSystemError } from "./pip-failure.ts";
import { linkPlainName } from "./plain-name.ts";
import { findPython, verifyPython, type Python } from "./python.ts";
import { step, type Log } from "./step-log.ts";

/** What a campaign on this machine needs beside Node. Paths are absolute. */
export interface Assets {
  natsServer: string;
  /** Null where no sandbox can be made; the log says why. */
  bwrap: string | null;
  /** The GGUF file. */
  weights: string;
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
}

/**
 * Finds or fetches everything, one log line a step. Idempotent: what is there is only checked, and no network is touched. Stopped at
 * any moment it goes on where it was, at the granularity of one asset. Several processes may run it at once. Rejects with a SetupError,
 * or with the signal's reason.
 */
export async function ensureAssets({ cacheDir, log, signal, cxx }: EnsureAssetsOptions): Promise<Assets> {
  try {
    await mkdir(cacheDir, { recursive: true });
  } catch (error) {
    throw explainSystemError("cache folder", cacheDir, error);
  }
  let python: Promise<Python> | undefined;
  const context: AssetContext = { cacheDir, log, signal, python: () => (python ??= verifyPython(signal)) };
  // First: to look costs nothing, and without it a campaign gets no further than its first draft.
  await step(log, "git", () => ensureGit(signal));
  const natsServer = await step(log, "nats-server", () => ensureNatsServer(context));
  await linkPlainName(cacheDir, "nats-server", natsServer);
  const bwrap = await step(log, "bubblewrap", () => ensureBubblewrap(context));
  const weights = await step(log, "weights", () => ensureWeights(context));
  const compiler = await step(log, "C++ compiler", () => ensureCompiler(context, cxx));
  return { natsServer, bwrap, weights, cxx: compiler, python: (await findPython(signal))?.path ?? null };
}

async function ensureWeights(context: AssetContext): Promise<{ value: string; note?: string }> {
  const { path, note } = await ensureCached(weightsAsset, context);
  return note === undefined ? { value: path } : { value: path, note };
}
