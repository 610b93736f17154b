import { splitmix } from "../tiny-model/splitmix.ts";

const wide = new Float32Array(1);
const bits = new Uint32Array(wide.buffer);

/** The nearest bfloat16, ties to even. */
export function bfloat16(value: number): number {
  wide[0] = value;
  return (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) >>> 16;
}

/** Draws kept for each spread; a prime, so that no matrix's width divides it. 4 MB as bfloat16. */
const POOL = 2_097_143;

/**
 * Random bfloat16 at the speed of a copy. For each spread there is one pool of uniform draws (sums of many products are normal anyhow); a row of a matrix is a
 * run of the pool from a place of its own. Only additions, products and roots, which IEEE 754 fixes: the same bytes on every machine.
 */
export class Draws {
  readonly #seed: number;
  readonly #pools = new Map<number, Uint16Array>();

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** A stream of integers of its own for a name's number. */
  stream(name: number): () => number {
    return splitmix(splitmix(this.#seed ^ Math.imul(name + 1, 0x632be5ab))());
  }

  /** Fills `row` with draws of that standard deviation; `at`: a number from the matrix's stream. */
  fill(row: Uint16Array, deviation: number, at: number): void {
    const pool = this.#pool(deviation);
    const from = at % POOL;
    row.set(pool.subarray(from, from + row.length));
  }

  /** Its beginning is repeated behind its end, so that a run may start anywhere. */
  #pool(deviation: number): Uint16Array {
    let pool = this.#pools.get(deviation);
    if (!pool) {
      const next = this.stream(-2);
      const step = (deviation * Math.sqrt(12)) / 2 ** 32;
      pool = new Uint16Array(POOL + WIDEST);
      for (let i = 0; i < POOL; ++i) pool[i] = bfloat16((next() - 2 ** 31) * step);
      pool.copyWithin(POOL, 0, WIDEST);
      this.#pools.set(deviation, pool);
    }
    return pool;
  }
}
/** Columns of the widest matrix that can be drawn. */
const WIDEST = 2 ** 17;
