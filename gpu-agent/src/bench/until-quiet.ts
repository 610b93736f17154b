import { setTimeout as delay } from "node:timers/promises";
import { readCpu } from "./cpu-clock.ts";
import type { QuietLimits } from "./quiet.ts";

/** Long enough to tell 8 % of two processors from a tick, short against a run. */
const LOOK_MS = 500;
/** A compiler or a package manager beside us is done in tens of seconds; eight refusals with this wait still end within a job's deadline. */
export const QUIET_WAIT_MS = 20_000;

/**
 * Waits until nothing but the agent itself uses the device's processors, while every arm is stopped: a look costs nothing, a refused run costs seconds.
 * Gives up quietly after `withinMs`, since the next run is judged by itself. Throws the signal's reason.
 */
export async function untilQuiet(processors: readonly number[], limits: QuietLimits, withinMs: number, signal: AbortSignal): Promise<void> {
  const ends = performance.now() + withinMs;
  let before = await readCpu(processors);
  let own = process.cpuUsage();
  do {
    await delay(LOOK_MS, undefined, { signal });
    const after = await readCpu(processors);
    const used = process.cpuUsage(own);
    const total = after.totalS - before.totalS;
    const foreign = after.busyS - before.busyS - (used.user + used.system) / 1e6;
    const quiet = (100 * foreign) / total <= limits.foreignCpuPct && (100 * (after.stealS - before.stealS)) / total <= limits.stealPct;
    if (quiet) return;
    before = after;
    own = process.cpuUsage();
  } while (performance.now() < ends);
}
