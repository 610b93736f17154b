import { createRng } from "@vibeserve/shared";
import { describe, expect, it } from "vitest";
import { smallestSet } from "../../coordinator/src/findings/cover.ts";

/** Columns that gain something and where no chosen row keeps the share. */
function uncovered(gains: (number | null)[][], rows: readonly number[], keep: number): number[] {
  const log = (r: number, c: number): number => Math.log(gains[r]?.[c] ?? 0);
  return [...(gains[0] ?? []).keys()].filter((c) => {
    const best = Math.max(...gains.map((_, r) => log(r, c)));
    return best > 0 && !rows.some((r) => log(r, c) >= keep * best - 1e-12);
  });
}

describe("the smallest set of stacks", () => {
  it("keeps the share of the gain in every column, in logarithms: 2× is half of 4×", () => {
    const gains = [
      [4, 1.1],
      [2, 3],
    ];
    expect(smallestSet(gains, 0.95)).toEqual({ rows: [0, 1], exact: true });
    expect(smallestSet(gains, 0.51)).toEqual({ rows: [0, 1], exact: true });
    expect(smallestSet(gains, 0.5)).toEqual({ rows: [1], exact: true });
  });

  it("takes of sets of one size the one that gains most, needs none where the seed is best, and what is unknown covers nothing", () => {
    expect(smallestSet([[3], [4], [3.99]], 0.7).rows).toEqual([1]);
    expect(smallestSet([[0.9, 1]], 0.95).rows).toEqual([]);
    expect(
      smallestSet(
        [
          [5, null],
          [null, 5],
        ],
        0.95,
      ).rows,
    ).toEqual([0, 1]);
    expect(smallestSet([], 0.95)).toEqual({ rows: [], exact: true });
  });

  it("is no larger than any other set that covers, and covers; so does the greedy one for many rows, which says that it is", () => {
    const rng = createRng("covers");
    for (let round = 0; round < 40; round++) {
      const gains = Array.from({ length: 6 }, () => Array.from({ length: 5 }, () => (rng.next() < 0.3 ? null : 0.5 + 6 * rng.next())));
      const { rows, exact } = smallestSet(gains, 0.8);
      expect(exact).toBe(true);
      expect(uncovered(gains, rows, 0.8)).toEqual([]);
      for (let bits = 0; bits < 64; bits++) {
        const other = [...gains.keys()].filter((r) => bits & (1 << r));
        if (other.length < rows.length) expect(uncovered(gains, other, 0.8), String(other)).not.toEqual([]);
      }
      const many = [...gains, ...gains, ...gains];
      const greedy = smallestSet(many, 0.8);
      expect(greedy.exact).toBe(false);
      expect(uncovered(many, greedy.rows, 0.8)).toEqual([]);
      expect(greedy.rows.length).toBeGreaterThanOrEqual(rows.length);
    }
  });
});
