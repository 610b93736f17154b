import type { JobKind } from "@vibeserve/shared";

/** Before any was seen: what they took on the slowest machine met so far. Only ETAs and back-fill look at it. */
const GUESS_MS: Record<JobKind, number> = {
  build: 20_000,
  check: 60_000,
  bench: 60_000,
  baseline: 120_000,
  profile: 40_000,
  exec: 10_000,
};
/** Weight of the newest: the last dozen count. */
const NEWEST = 0.2;

/** How long jobs of a kind took in a pool lately, ms: an exponential mean. */
export class Durations {
  readonly #means = new Map<string, number>();

  seen(pool: string, kind: JobKind, ms: number): void {
    const key = `${pool} ${kind}`;
    const mean = this.#means.get(key);
    this.#means.set(key, mean === undefined ? ms : mean + NEWEST * (ms - mean));
  }

  of(pool: string, kind: JobKind): number {
    return this.#means.get(`${pool} ${kind}`) ?? GUESS_MS[kind];
  }
}
