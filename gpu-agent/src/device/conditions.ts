import { existsSync } from "node:fs";
import type { DeviceConditions } from "@vibeserve/shared";
import type { DeviceSample } from "./adapter.ts";

/** What a device did during a run, and why that run does not count; null: it does. */
export interface Watched {
  readonly conditions: DeviceConditions;
  readonly refusal: string | null;
}

/** Sums up the samples of one run; null where there is none. */
export function conditionsOf(samples: readonly DeviceSample[], foreign: readonly (readonly number[] | null)[]): Watched | null {
  if (samples.length === 0) return null;
  const worst = (of: (s: DeviceSample) => number | undefined): number | undefined => {
    const given = samples.map(of).filter((v) => v !== undefined);
    return given.length === 0 ? undefined : Math.max(...given);
  };
  const clocks = samples.flatMap((s) => s.clocksMHz);
  const others = foreign.filter((pids) => pids !== null).map((pids) => pids.length);
  const slowed = [...new Set(samples.flatMap((s) => s.slowed))];
  const conditions: DeviceConditions = {
    samples: samples.length,
    ...(clocks.length === 0 ? {} : { clockMHz: { min: Math.min(...clocks), max: Math.max(...clocks) } }),
    ...given(
      "temperatureC",
      worst((s) => s.temperatureC),
    ),
    ...given(
      "powerW",
      worst((s) => s.powerW),
    ),
    throttle: [...new Set(samples.flatMap((s) => s.throttle))].sort(),
    ...(others.length === 0 ? {} : { foreignProcesses: Math.max(...others) }),
    ...given(
      "memoryMiB",
      worst((s) => s.memoryMiB),
    ),
  };
  const reasons = [
    slowed.length > 0 ? `the device was slowed: ${slowed.join(", ")}` : null,
    (conditions.foreignProcesses ?? 0) > 0 ? `the device was shared with ${conditions.foreignProcesses} other processes` : null,
  ].filter((r) => r !== null);
  return { conditions, refusal: reasons.length === 0 ? null : reasons.join(", ") };
}

/** The worst of several runs' conditions, for the certificate. */
export function worstOf(all: readonly DeviceConditions[]): DeviceConditions | null {
  if (all.length === 0) return null;
  const most = (of: (c: DeviceConditions) => number | undefined): number | undefined => {
    const given = all.map(of).filter((v) => v !== undefined);
    return given.length === 0 ? undefined : Math.max(...given);
  };
  const least = all.map((c) => c.clockMHz?.min).filter((v) => v !== undefined);
  const highest = most((c) => c.clockMHz?.max);
  return {
    samples: all.reduce((sum, c) => sum + c.samples, 0),
    ...(highest === undefined ? {} : { clockMHz: { min: Math.min(...least), max: highest } }),
    ...given(
      "temperatureC",
      most((c) => c.temperatureC),
    ),
    ...given(
      "powerW",
      most((c) => c.powerW),
    ),
    throttle: [...new Set(all.flatMap((c) => c.throttle))].sort(),
    ...given(
      "foreignProcesses",
      most((c) => c.foreignProcesses),
    ),
    ...given(
      "memoryMiB",
      most((c) => c.memoryMiB),
    ),
  };
}

/**
 * Who else computes on a device. Null where it can't be told: in a container's own pid namespace the tool names processes by other numbers, so that the
 * arms' own are not among them, and none of those that it names is to be seen here.
 */
export function foreignPids(
  pids: DeviceSample["pids"],
  own: ReadonlySet<number>,
  isHere: (pid: number) => boolean = (pid) => existsSync(`/proc/${pid}`),
): number[] | null {
  if (pids === null) return null;
  const others = pids.filter((pid) => !own.has(pid));
  return others.length === 0 || others.length < pids.length || others.some(isHere) ? others : null;
}

/** `{[name]: value}`, or nothing where there is no value. */
export const given = <K extends string>(name: K, value: number | null | undefined): Partial<Record<K, number>> =>
  value === undefined || value === null ? {} : ({ [name]: value } as Partial<Record<K, number>>);
