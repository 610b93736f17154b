import { setTimeout as delay } from "node:timers/promises";
import type { DeviceSample } from "./adapter.ts";
import { foreignPids } from "./conditions.ts";

/** A vendor's tool may take most of a second itself. */
const LOOK_MS = 1_000;

/** Samples until nobody else is on the device and it is not slowed; gives up quietly after `withinMs`, or where the tool does not answer. */
export async function untilIdle(
  sample: () => Promise<DeviceSample | null>,
  own: () => ReadonlySet<number>,
  withinMs: number,
  signal: AbortSignal,
): Promise<void> {
  const ends = performance.now() + withinMs;
  for (;;) {
    signal.throwIfAborted();
    const seen = await sample();
    if (seen === null || (seen.slowed.length === 0 && (foreignPids(seen.pids, own())?.length ?? 0) === 0)) return;
    if (performance.now() >= ends) return;
    await delay(LOOK_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
