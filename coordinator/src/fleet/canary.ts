import { digestOf, median, type BenchSpec, type BuiltStack, type Outcome, type Target } from "@vibeserve/shared";

/** What a device once did with a known stack under a known load: rates of canaries that passed, oldest first, in the metric's unit. */
export interface CanaryHistory {
  /** Of build and load: only the same can be compared. */
  key: string;
  rates: readonly number[];
}

/** So many are kept. */
export const KEPT = 20;
/** Below this a spread says nothing: then only the relative limit counts. */
const SPREAD_FROM = 4;
/** The scaled median of absolute deviations estimates a normal deviation with half the sample spoilt. */
const MAD_TO_SIGMA = 1.4826;
const SIGMAS = 4;
/** Runs of one stack on one quiet device spread by 1 to 2 %. */
const DRIFT = 0.05;

/** A known stack against itself: what comes out is known beforehand. Wide confidence, since one false alarm takes a device out. */
export function canarySpec(target: Target, stack: BuiltStack): BenchSpec {
  const build = { source: "build" as const, build: stack };
  return {
    ...{ kind: "bench", purpose: "canary", model: target.model, workload: target.slice, metric: target.objective },
    ...{ challenger: { role: "challenger", stack: build }, champion: { role: "seed", stack: build } },
    ...{ pairs: { min: 3, max: 3 }, confidence: 0.99, runLimitMs: 120_000 },
  };
}

export const canaryKey = ({ champion, workload }: BenchSpec): string => digestOf({ champion: champion.stack, workload });

export type CanaryVerdict = { passed: true; rate: number; why: string } | { passed: false; why: string };

/** Drift needs both: more than 4 robust deviations, where there are enough to tell, and more than 5 % from this device's own median. */
export function judgeCanary(outcome: Outcome, rates: readonly number[]): CanaryVerdict {
  if (outcome.status !== "measured") {
    const why = outcome.status === "failed" ? `${outcome.failure.code}: ${outcome.failure.message}` : outcome.status;
    return { passed: false, why: `its canary, a stack that is known to work, failed: ${why}` };
  }
  const { comparison: c, champion } = outcome;
  if (c.lo > 1 || c.hi < 1)
    return { passed: false, why: `its canary found a stack ${c.point.toFixed(3)}× [${c.lo.toFixed(3)}, ${c.hi.toFixed(3)}] of itself` };
  const rate = champion.value;
  if (rates.length === 0) return { passed: true, rate, why: `its first canary: ${rate.toPrecision(4)} ${champion.metric.unit}` };
  const usual = median(rates);
  const sigma = MAD_TO_SIGMA * median(rates.map((r) => Math.abs(r - usual)));
  const off = Math.abs(rate - usual);
  const words = `${rate.toPrecision(4)} ${champion.metric.unit}, where it had ${usual.toPrecision(4)}`;
  if (off > DRIFT * usual && (rates.length < SPREAD_FROM || off > SIGMAS * sigma))
    return { passed: false, why: `its canary drifted: ${words}` };
  return { passed: true, rate, why: `its canary passed: ${words}` };
}
