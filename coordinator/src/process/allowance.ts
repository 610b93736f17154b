/**
 * What each of many may do a second, and at once: a bucket a key, full at first. Keys that did nothing for long are forgotten, and at 16,384 the one that came
 * first, so that those who invent keys cost no memory.
 */
export class Allowance {
  readonly #burst: number;
  readonly #perS: number;
  readonly #now: () => number;
  readonly #buckets = new Map<string, { left: number; at: number }>();

  constructor(burst: number, perS: number, now: () => number = Date.now) {
    [this.#burst, this.#perS, this.#now] = [burst, perS, now];
  }

  /** False: it has none left. */
  take(key: string): boolean {
    const at = this.#now();
    const before = this.#buckets.get(key);
    const left = before ? Math.min(this.#burst, before.left + (Math.max(0, at - before.at) / 1000) * this.#perS) : this.#burst;
    if (!before && this.#buckets.size >= MAX_KEYS) this.#forget(at);
    this.#buckets.set(key, { left: left >= 1 ? left - 1 : left, at });
    return left >= 1;
  }

  #forget(at: number): void {
    const fullMs = (this.#burst / this.#perS) * 1000;
    for (const [key, bucket] of this.#buckets) if (at - bucket.at > fullMs) this.#buckets.delete(key);
    for (const key of this.#buckets.keys()) {
      if (this.#buckets.size < MAX_KEYS) break;
      this.#buckets.delete(key);
    }
  }
}

const MAX_KEYS = 16_384;
