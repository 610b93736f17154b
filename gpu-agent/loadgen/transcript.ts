/** Raw bytes of one response with the arrival of each read. Nothing is looked at here; parse.ts does that after the run. */
export class Transcript {
  readonly index: number;
  /** -1 while it waits for a free connection. */
  connection: number;
  readonly scheduledMs: number;
  /** When this process noticed that it was due: later than scheduled by its own slip, whatever the candidate does. */
  noticedMs = NaN;
  /** NaN while it waits for a free connection. */
  sentMs = NaN;
  /** NaN until the last byte came. */
  endMs = NaN;
  /** Set where the response did not end as it must. */
  error: string | null = null;
  #buffer = Buffer.allocUnsafe(8 * 1024);
  #length = 0;
  readonly #ends: number[] = [];
  readonly #times: number[] = [];

  constructor(index: number, connection: number, scheduledMs: number) {
    this.index = index;
    this.connection = connection;
    this.scheduledMs = scheduledMs;
  }

  get length(): number {
    return this.#length;
  }

  append(bytes: Uint8Array, atMs: number): void {
    if (this.#length + bytes.length > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + bytes.length));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
    this.#ends.push(this.#length);
    this.#times.push(atMs);
  }

  /** The status line says 200. */
  succeeded(): boolean {
    return /^HTTP\/1\.[01] 200 /.test(this.#buffer.toString("latin1", 0, Math.min(this.#length, 16)));
  }

  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** When the byte at `offset` was here; offsets must not be asked for beyond the end. */
  arrivalOf(offset: number): number {
    let lo = 0;
    let hi = this.#ends.length - 1;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if ((this.#ends[mid] ?? 0) > offset) hi = mid;
      else lo = mid + 1;
    }
    return this.#times[lo] ?? NaN;
  }
}
