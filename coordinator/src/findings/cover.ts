/** What a set of stacks keeps: the rows chosen, in their order. */
export interface Cover {
  rows: number[];
  /** Whether no smaller set exists; else it was chosen greedily. */
  exact: boolean;
}

/** 2^16 sets of rows are looked at in milliseconds. */
const EXACT_ROWS = 16;

/**
 * The smallest set of rows so that in every column one of them keeps the share `keep` of the best gain there. gains[row][column] is a ratio to that column's
 * seed, null where it is unknown or does not run; the gain is its logarithm, so 0.5 of 4× is 2×. A column where nothing gains needs no row: the seed serves
 * it. Of sets of the same size, the one with the largest sum of gains; with more than EXACT_ROWS rows greedy, which is within ln(columns) + 1 of the smallest.
 */
export function smallestSet(gains: readonly (readonly (number | null)[])[], keep: number): Cover {
  const log = gains.map((row) => row.map((g) => (g === null || g <= 0 ? -Infinity : Math.log(g))));
  const columns = [...(gains[0] ?? []).keys()];
  const best = columns.map((c) => Math.max(0, ...log.map((row) => row[c] ?? -Infinity)));
  const needed = columns.filter((c) => (best[c] ?? 0) > 0);
  const covers = log.map((row) => needed.filter((c) => (row[c] ?? -Infinity) >= keep * (best[c] ?? 0) - 1e-12));
  const kept = (rows: readonly number[]): number =>
    needed.reduce((sum, c) => sum + Math.max(0, ...rows.map((r) => log[r]?.[c] ?? -Infinity)), 0);
  const missing = (rows: readonly number[]): number[] => needed.filter((c) => !rows.some((r) => covers[r]?.includes(c)));
  if (gains.length > EXACT_ROWS) return greedy(covers, missing);
  let chosen: number[] | null = null;
  for (let bits = 0; bits < 2 ** gains.length; bits++) {
    const rows = [...gains.keys()].filter((r) => bits & (1 << r));
    if (missing(rows).length > 0) continue;
    if (!chosen || rows.length < chosen.length || (rows.length === chosen.length && kept(rows) > kept(chosen))) chosen = rows;
  }
  return { rows: chosen ?? [], exact: true };
}

function greedy(covers: readonly (readonly number[])[], missing: (rows: readonly number[]) => number[]): Cover {
  const rows: number[] = [];
  for (let left = missing(rows); left.length > 0; left = missing(rows)) {
    const gain = (r: number): number => covers[r]?.filter((c) => left.includes(c)).length ?? 0;
    const next = [...covers.keys()].reduce((a, b) => (gain(b) > gain(a) ? b : a));
    rows.push(next);
  }
  return { rows: rows.sort((a, b) => a - b), exact: false };
}
