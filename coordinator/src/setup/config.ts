import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/** What the set-up takes from the environment. */
export interface SetupConfig {
  /** `$XDG_CACHE_HOME/vibeserve`, by default `~/.cache/vibeserve`: one per user, shared by every clone of the repository. */
  cacheDir: string;
  /** `$CXX`, which may be several words: the compiler that is tried first. */
  cxx: string | undefined;
}

/** Reads the environment. A relative XDG_CACHE_HOME is ignored, as its specification says. */
export function readSetupConfig(env: NodeJS.ProcessEnv = process.env): SetupConfig {
  const xdg = env["XDG_CACHE_HOME"] ?? "";
  const cxx = (env["CXX"] ?? "").trim();
  return { cacheDir: join(isAbsolute(xdg) ? xdg : join(homedir(), ".cache"), "vibeserve"), cxx: cxx === "" ? undefined : cxx };
}
