import type { Length, Workload } from "@vibeserve/shared";

export function meanTokens(l: Length): number {
  if (l.distribution === "fixed") return l.tokens;
  if (l.distribution === "uniform") return (l.min + l.max) / 2;
  return Math.min(l.max, Math.max(l.min, l.median * Math.exp((l.sigma * l.sigma) / 2)));
}

/** Positions (prompt and output tokens) that one run computes, on average. */
export const positions = (w: Workload): number => w.requests * (meanTokens(w.prompt) + meanTokens(w.output));

/** Positions per second of a stack that served `w` at `tokPerS` output tokens per second. */
export const positionRate = (w: Workload, tokPerS: number): number => tokPerS * (1 + meanTokens(w.prompt) / meanTokens(w.output));

const concurrency = (w: Workload): number => (w.arrival.process === "closed" ? w.arrival.concurrency : 8);

/** Seconds that a screening run should take on the slower arm: long against noise of ~10 ms, short against the budget. */
const SCREEN_S = 3;

/**
 * The workload for screening against a parent of the given position rate (null: never measured): the target's own, with as many requests as
 * fit SCREEN_S, and at least two a client; the slice while even that would take over three times as long.
 */
export function screeningWorkload(full: Workload, slice: Workload, parentRate: number | null): Workload {
  if (parentRate === null) return slice;
  const perRequest = positions(full) / full.requests;
  const least = 2 * concurrency(full);
  if ((least * perRequest) / parentRate > 3 * SCREEN_S) return slice;
  const fits = Math.floor((SCREEN_S * parentRate) / perRequest);
  return { ...full, requests: Math.min(full.requests, Math.max(least, fits)) };
}
