import type { Sample } from "./metrics.ts";

/** Samples by label set. */
export class Tally implements Iterable<Sample> {
  readonly #samples = new Map<string, [labels: Record<string, string>, value: number]>();

  add(labels: Record<string, string>, n = 1): void {
    this.#at(labels)[1] += n;
  }

  most(labels: Record<string, string>, n: number): void {
    const sample = this.#at(labels);
    sample[1] = Math.max(sample[1], n);
  }

  [Symbol.iterator](): Iterator<Sample> {
    return this.#samples.values();
  }

  #at(labels: Record<string, string>): [labels: Record<string, string>, value: number] {
    const key = Object.values(labels).join("\u0000");
    const sample = this.#samples.get(key) ?? [labels, 0];
    this.#samples.set(key, sample);
    return sample;
  }
}
