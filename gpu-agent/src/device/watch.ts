import type { DeviceSample } from "./adapter.ts";
import { conditionsOf, foreignPids, type Watched } from "./conditions.ts";

/** Often enough to see a throttle of seconds, and what a tool costs stays under a tenth of one processor. */
const EVERY_MS = 1_000;

/** Samples a device from now on, once a second. stop() takes the last one and sums up; cancel() waits for nothing. A tool that is slower than that is asked less often. */
export function watchDevice(
  sample: () => Promise<DeviceSample | null>,
  own: () => ReadonlySet<number>,
  everyMs = EVERY_MS,
): { stop(): Promise<Watched | null>; cancel(): void } {
  const samples: DeviceSample[] = [];
  const foreign: (readonly number[] | null)[] = [];
  let running: Promise<void> | null = null;
  const take = (): Promise<void> => {
    running ??= (async () => {
      const taken = await sample();
      running = null;
      if (taken === null) return;
      samples.push(taken);
      foreign.push(foreignPids(taken.pids, own()));
    })();
    return running;
  };
  void take();
  const timer = setInterval(() => void take(), everyMs);
  return {
    cancel: () => clearInterval(timer),
    stop: async () => {
      clearInterval(timer);
      await running;
      await take();
      return conditionsOf(samples, foreign);
    },
  };
}
