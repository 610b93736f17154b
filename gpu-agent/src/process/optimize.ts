import { setFlagsFromString } from "node:v8";

/**
 * Whether V8 may compile what runs often. An agent that waits needs no compiler, and one that never ran is 8 MB of it not in memory; a load generator does. Both flags
 * are looked at whenever a function is hot, so they hold from now on.
 */
export function optimize(may: boolean): void {
  for (const flag of ["opt", "maglev"]) setFlagsFromString(may ? `--${flag}` : `--no-${flag}`);
}
