import type { Python } from "./python.ts";
import type { Log } from "./step-log.ts";

/** What every step of the set-up works with. */
export interface AssetContext {
  cacheDir: string;
  log: Log;
  signal: AbortSignal | undefined;
  /** Which platform the parts are for, as in "linux-arm64". Undefined: this machine's. */
  platform?: string | undefined;
  /** Folder of the offline bundle that this runs from: parts are copied from it, never fetched. Undefined: pip fetches them. */
  bundle?: string | undefined;
  /** Looks for Python and pip at the first call, and rejects with a SetupError if they are not there. Nothing that is cached needs them. */
  python: () => Promise<Python>;
}
