/** 8 MB: beyond a core's own caches, so that memory bandwidth taken by a neighbour shows as well. */
const data = new Int32Array(2 * 1024 * 1024).fill(40503);
const REPEATS = 5;

/**
 * Milliseconds that a fixed piece of work takes on one core (5–10), least of a few repeats: the machine's speed just before and just after a run.
 * Virtual machines have spells in which everything is 3–6 times slower and no counter says so. The first repeat only warms up the compiler.
 */
export function speedProbe(): number {
  let least = Infinity;
  let mixed = 0;
  for (let repeat = 0; repeat < REPEATS; repeat++) {
    const start = performance.now();
    for (let i = 0; i < data.length; i++) mixed = Math.imul(mixed ^ (data[i] ?? 0), 16777619);
    if (repeat > 0) least = Math.min(least, performance.now() - start);
  }
  // Depends on the work, so that none of it can be left out.
  return mixed === 0.5 ? NaN : least;
}
