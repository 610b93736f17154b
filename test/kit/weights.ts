import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** The user's cache of what the product fetches: `$XDG_CACHE_HOME/vibeserve`, by default `~/.cache/vibeserve`. */
export function cacheDir(): string {
  return join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "vibeserve");
}

/**
 * The path of SmolLM2-135M-Instruct's GGUF: `$VIBESERVE_WEIGHTS`, or else where the product's set-up puts it.
 * Throws with the fix when it is not there: a test that needs real weights must not pass without them.
 */
export function weightsPath(): string {
  const path = process.env["VIBESERVE_WEIGHTS"] ?? join(cacheDir(), "weights/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!existsSync(path)) throw new Error(`no weights at ${path}: run the set-up (npm test does it), or name the file in VIBESERVE_WEIGHTS`);
  return path;
}
