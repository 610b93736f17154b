import type { Python } from "./python.ts";
import type { Log } from "./step-log.ts";

/** What every step of the set-up works with. */
export interface AssetContext {
  cacheDir: string;
  log: Log;
  signal: AbortSignal | undefined;
  /** Looks for Python and pip at the first call, and rejects with a SetupError if they are not there. Nothing that is cached needs them. */
  python: () => Promise<Python>;
}
