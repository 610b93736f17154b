import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/** What the set-up takes from the environment. */
export interface SetupConfig {
  /** `$XDG_CACHE_HOME/vibeserve`, by default `~/.cache/vibeserve`: one per user, shared by every clone of the repository. */
  cacheDir: string;
  /** `$CXX`, which may be several words: the compiler that is tried first. */
  cxx: string | undefined;
  /** `$VIBESERVE_BUNDLE`, set by the launcher of an unpacked offline bundle: its folder. Parts come from there, and no network is tried. */
  bundle: string | undefined;
}

/** Reads the environment. */
export function readSetupConfig(env: NodeJS.ProcessEnv = process.env): SetupConfig {
  const cxx = (env["CXX"] ?? "").trim();
  const bundle = env["VIBESERVE_BUNDLE"] ?? "";
  return {
    cacheDir: join(xdgFolder(env, "XDG_CACHE_HOME", ".cache"), "vibeserve"),
    cxx: cxx === "" ? undefined : cxx,
    bundle: bundle === "" ? undefined : bundle,
  };
}

/** A user's base folder. A variable that is empty or relative counts as unset, as the XDG specification says: then it is `~/<fallback>`. */
export function xdgFolder(env: NodeJS.ProcessEnv, variable: "XDG_CACHE_HOME" | "XDG_CONFIG_HOME", fallback: string): string {
  const given = env[variable] ?? "";
  return isAbsolute(given) ? given : join(env["HOME"] ?? homedir(), fallback);
}
