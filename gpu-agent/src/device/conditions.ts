import { existsSync } from "node:fs";
import type { DeviceConditions } from "@vibeserve/shared";
import type { DeviceSample } from "./adapter.ts";

/** What a device did during a run, and why that run does not count; null: it does. */
export interface Watched {
  readonly conditions: DeviceConditions;
  readonly refusal: string | null;
}

/** Sums up the samples of one run, each with the processes that were foreign then; null where there is none. */
export function conditionsOf(samples: readonly DeviceSample[], foreign: readonly (readonly number[] | null)[]): Watched | null {
  const conditions = worstOf(samples.map((sample, i) => single(sample, foreign[i] ?? null)));
  if (conditions === null) return null;
  const slowed = [...new Set(samples.flatMap((s) => s.slowed))];
  const others = conditions.foreignProcesses ?? 0;
  const reasons = [
    slowed.length > 0 ? `the device was slowed: ${slowed.join(", ")}` : null,
    others > 0 ? `the device was shared with ${others} other processes` : null,
  ].filter((r) => r !== null);
  return { conditions, refusal: reasons.length === 0 ? null : reasons.join(", ") };
}

/** The devices of one run together: the worst of all, each by itself where there are several, and why the run does not count. */
export function watchedOf(watched: readonly { readonly id: string; readonly seen: Watched | null }[]): {
  said: { conditions: DeviceConditions | null; devices?: { id: string; conditions: DeviceConditions | null }[] };
  refusal: string | null;
} {
  const several = watched.length > 1;
  const devices = watched.map(({ id, seen }) => ({ id, conditions: seen?.conditions ?? null }));
  const conditions = worstOf(devices.flatMap((d) => d.conditions ?? []));
  const refusals = watched.flatMap(({ id, seen }) => {
    const refusal = seen?.refusal ?? null;
    return refusal === null ? [] : [several ? `${id}: ${refusal}` : refusal];
  });
  return { said: { conditions, ...(several ? { devices } : {}) }, refusal: refusals.length === 0 ? null : refusals.join(", ") };
}

function single(s: DeviceSample, foreign: readonly number[] | null): DeviceConditions {
  return {
    samples: 1,
    ...(s.clocksMHz.length === 0 ? {} : { clockMHz: { min: Math.min(...s.clocksMHz), max: Math.max(...s.clocksMHz) } }),
    ...given("temperatureC", s.temperatureC),
    ...given("powerW", s.powerW),
    throttle: [...s.throttle],
    ...given("foreignProcesses", foreign?.length),
    ...given("memoryMiB", s.memoryMiB),
  };
}

/** The worst of all of them, of samples for a run and of runs for a certificate; null where there is none. */
export function worstOf(all: readonly DeviceConditions[]): DeviceConditions | null {
  if (all.length === 0) return null;
  const most = <K extends "temperatureC" | "powerW" | "foreignProcesses" | "memoryMiB">(name: K): Partial<Record<K, number>> => {
    const known = all.map((c) => c[name]).filter((v) => v !== undefined);
    return given(name, known.length === 0 ? null : Math.max(...known));
  };
  const clocks = all.map((c) => c.clockMHz).filter((c) => c !== undefined);
  return {
    samples: all.reduce((sum, c) => sum + c.samples, 0),
    ...(clocks.length === 0
      ? {}
      : { clockMHz: { min: Math.min(...clocks.map((c) => c.min)), max: Math.max(...clocks.map((c) => c.max)) } }),
    ...most("temperatureC"),
    ...most("powerW"),
    throttle: [...new Set(all.flatMap((c) => c.throttle))].sort(),
    ...most("foreignProcesses"),
    ...most("memoryMiB"),
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
