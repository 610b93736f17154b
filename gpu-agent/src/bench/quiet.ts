import type { Device } from "@vibeserve/shared";
import type { SelfWatch } from "../../loadgen/plan.ts";
import type { CpuReading } from "./cpu-clock.ts";

/** What else went on while one run was timed. Percentages are of the capacity of the device's processors. */
export interface Quiet {
  readonly stealPct: number;
  readonly foreignCpuPct: number;
  readonly armCpuPct: number;
  readonly generatorCpuPct: number;
  readonly scheduleSlipP99Ms: number;
  readonly loopDelayP99Ms: number;
  /** Time of a fixed piece of work around the run over the least that it took in this comparison: 2 is a machine at half speed. */
  readonly slowdown: number;
  /** What a clock that ticks can't tell: the error of the two percentages above. */
  readonly resolutionPct: number;
}

/** A run beyond one of these is refused and repeated, never averaged. */
export interface QuietLimits {
  readonly stealPct: number;
  readonly foreignCpuPct: number;
  readonly scheduleSlipP99Ms: number;
  readonly loopDelayP99Ms: number;
  readonly slowdown: number;
}

/**
 * Why these numbers. Steal and foreign CPU time slow an arm about in proportion, and only their *difference* between the runs of a pair biases its
 * ratio: 3 % stolen is near the ±2 % that counts as noise, while below it the interval over pairs covers it. Foreign time is allowed 8 %, since
 * it also holds kernel threads, interrupts and the broker's, agent's and coordinator's ~1 %, and since a neighbour runs first on what the arm
 * leaves idle. A schedule 10 ms late would be a visible part of a TTFT of 100 ms; this generator's own lateness is ~1 ms. A loop that lags 20 ms at
 * p99 is two sampling periods late and has missed scheduler ticks for several time slices (4 ms at 250 Hz): stamps can't be believed then.
 * Steal and foreign time are read from clocks of 10 ms, so a value within their error of a limit is not over it: 0.4 points in a run of 5 s on two
 * processors, 8 in the quarter of a second that a fast arm needs for a slice. The speed probe repeats within 8 % on a machine whose other core is busy, and the spells that it is there for are factors of 3 to 6.
 */
export const QUIET_LIMITS: QuietLimits = { stealPct: 3, foreignCpuPct: 8, scheduleSlipP99Ms: 10, loopDelayP99Ms: 20, slowdown: 1.25 };

/**
 * Of a device that is not the processors: what it computes is watched by its own sensors, and the host that feeds it may be slower for a while. In a virtual machine
 * with an H200, whose processors are threads that share cores with the driver's waiting threads, the speed probe said 1.26 to 1.49 around 8 of 13 runs; spells of 3 to 6
 * are refused as ever.
 */
const ACCELERATOR_LIMITS: QuietLimits = { ...QUIET_LIMITS, slowdown: 2 };

export const limitsFor = ({ kind }: Pick<Device, "kind">): QuietLimits => (kind === "cpu" ? QUIET_LIMITS : ACCELERATOR_LIMITS);

/** Refuses nothing: for tests and trials on machines that are never quiet, where no figure is believed. */
export const UNLIMITED: QuietLimits = {
  stealPct: Infinity,
  foreignCpuPct: Infinity,
  scheduleSlipP99Ms: Infinity,
  loopDelayP99Ms: Infinity,
  slowdown: Infinity,
};

/** CPU seconds used in the window by those who may use it: the arm under test, the generator, and the agent itself. */
export interface KnownCpu {
  readonly armS: number;
  readonly generatorS: number;
  readonly agentS: number;
  /** How many processors the readings sum up. */
  readonly processors: number;
}

const TICK_S = 0.01;
/** The arm's and the generator's own clocks; each processor has one more. */
const KNOWN_CLOCKS = 2;

/** Two readings of the device's clock around a run. */
export function quietOf(before: CpuReading, after: CpuReading, known: KnownCpu, self: SelfWatch, slowdown: number): Quiet {
  const total = after.totalS - before.totalS;
  const pct = (seconds: number): number => (total > 0 ? Math.max(0, (100 * seconds) / total) : 0);
  const busy = after.busyS - before.busyS;
  return {
    stealPct: pct(after.stealS - before.stealS),
    foreignCpuPct: pct(busy - known.armS - known.generatorS - known.agentS),
    armCpuPct: pct(known.armS),
    generatorCpuPct: pct(known.generatorS),
    scheduleSlipP99Ms: self.slipP99Ms,
    loopDelayP99Ms: self.loopDelayP99Ms,
    slowdown,
    resolutionPct: pct(TICK_S * (known.processors + KNOWN_CLOCKS)),
  };
}

export interface Refusal {
  /** For the certificate, with the values. */
  readonly reason: string;
  /** The device itself was disturbed; false: only the generator was late or slow, which an arm that hogs every processor can cause as well. */
  readonly device: boolean;
}

/** Null: the run counts. `open`: only an open loop has a schedule to keep; in a closed loop the next request follows the last response. */
export function refusalOf(q: Quiet, open: boolean, limits: QuietLimits): Refusal | null {
  const device = [
    over("steal time", q.stealPct, limits.stealPct, "%", q.resolutionPct),
    over("foreign CPU time", q.foreignCpuPct, limits.foreignCpuPct, "%", q.resolutionPct),
  ].filter((p) => p !== null);
  const late = [
    open ? over("schedule slip p99", q.scheduleSlipP99Ms, limits.scheduleSlipP99Ms, " ms") : null,
    over("event loop delay p99", q.loopDelayP99Ms, limits.loopDelayP99Ms, " ms"),
    over("slowdown of the machine", q.slowdown, limits.slowdown, "×"),
  ].filter((p) => p !== null);
  const all = [...device, ...late];
  return all.length === 0 ? null : { reason: all.join(", "), device: device.length > 0 };
}

function over(what: string, value: number, limit: number, unit: string, error = 0): string | null {
  return value - error > limit ? `${what} ${value.toFixed(2)}${unit} > ${limit}${unit}` : null;
}
