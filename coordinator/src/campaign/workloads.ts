import { clientsOf, type Length, type Workload } from "@vibeserve/shared";

export function meanTokens(l: Length): number {
  if (l.distribution === "fixed") return l.tokens;
  if (l.distribution === "uniform") return (l.min + l.max) / 2;
  return Math.min(l.max, Math.max(l.min, l.median * Math.exp((l.sigma * l.sigma) / 2)));
}

/** Positions (prompt and output tokens) that one run computes, on average. */
export const positions = (w: Workload): number => w.requests * (meanTokens(w.prompt) + meanTokens(w.output));

/** Positions per second of a stack that served `w` at `tokPerS` output tokens per second. */
export const positionRate = (w: Workload, tokPerS: number): number => tokPerS * (1 + meanTokens(w.prompt) / meanTokens(w.output));

/** Seconds that a screening run should take on the slower arm: long against noise of ~10 ms, short against the budget. */
const SCREEN_S = 3;
/** Screening lengths are scaled down no further, so that a run stays the target's kind of load. */
const LEAST_SCALE = 0.25;

/**
 * The workload for screening against a parent of the given position rate (null: never measured): the target's own with as many requests as fit
 * SCREEN_S, at least two a client. Where even those do not fit, prompts and outputs are shortened alike; where that would make them shorter than
 * LEAST_SCALE, the slice is used.
 */
export function screeningWorkload(full: Workload, slice: Workload, parentRate: number | null): Workload {
  if (parentRate === null) return slice;
  const perRequest = positions(full) / full.requests;
  const least = Math.min(full.requests, 2 * clientsOf(full));
  const fits = (SCREEN_S * parentRate) / perRequest;
  if (fits >= least) return { ...full, requests: Math.min(full.requests, Math.floor(fits)) };
  const scale = fits / least;
  if (scale < LEAST_SCALE) return slice;
  return {
    ...full,
    prompt: scaled(full.prompt, scale, fewest(slice.prompt)),
    output: scaled(full.output, scale, fewest(slice.output)),
    requests: least,
  };
}

const fewest = (l: Length): number => (l.distribution === "fixed" ? l.tokens : l.min);

/** No shorter than `floor`: a chat's template alone has its tokens, and the target's own slice says how short is possible. */
function scaled(l: Length, by: number, floor: number): Length {
  const tokens = (n: number): number => Math.max(floor, Math.round(n * by));
  if (l.distribution === "fixed") return { ...l, tokens: tokens(l.tokens) };
  if (l.distribution === "uniform") return { ...l, min: tokens(l.min), max: tokens(l.max) };
  return { ...l, median: tokens(l.median), min: tokens(l.min), max: tokens(l.max) };
}
