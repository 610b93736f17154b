import { monitorEventLoopDelay } from "node:perf_hooks";
import type { SelfWatch } from "./plan.ts";
import type { Transcript } from "./transcript.ts";

/** How often the loop's delay is sampled. 100 wake-ups a second cost about 0.3 % of a core and give ≥ 500 samples in a 5 s run. */
const RESOLUTION_MS = 10;

/** Watches this process between "go" and "ended". */
export class Watch {
  readonly #delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  #cpu = process.cpuUsage();
  #startedAt = 0;

  start(): void {
    this.#delay.enable();
    this.#cpu = process.cpuUsage();
    this.#startedAt = performance.now();
  }

  stop(transcripts: readonly Transcript[]): Omit<SelfWatch, "probeMs"> {
    const wallS = (performance.now() - this.#startedAt) / 1000;
    const used = process.cpuUsage(this.#cpu);
    this.#delay.disable();
    const slips = transcripts.map((t) => t.noticedMs - t.scheduledMs);
    slips.sort((a, b) => a - b);
    const slip = (q: number): number => slips[Math.min(slips.length - 1, Math.floor(slips.length * q))] ?? 0;
    return {
      loopDelayP99Ms: late(this.#delay.percentile(99)),
      loopDelayMaxMs: late(this.#delay.max),
      slipP50Ms: slip(0.5),
      slipP99Ms: slip(0.99),
      cpuS: (used.user + used.system) / 1e6,
      wallS,
      rssBytes: process.memoryUsage.rss(),
    };
  }
}

/** The histogram holds the whole interval between two samples in nanoseconds; the delay is what it has over the interval that was asked for. */
function late(ns: number): number {
  return Math.max(0, ns / 1e6 - RESOLUTION_MS);
}
