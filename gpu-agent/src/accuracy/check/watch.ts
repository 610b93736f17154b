import { CandidateFault } from "./candidate-fault.ts";

export interface WatchLimits {
  /** All the time in which the candidate owes an answer. */
  readonly totalMs: number;
  /** Without a byte from the candidate while it owes an answer. */
  readonly stallMs: number;
}

/**
 * Ends a check whose candidate hangs: `signal` aborts with a CandidateFault at either limit, or with the caller's own reason. Clocks run only
 * while the candidate owes something, so a slow reference is never the candidate's fault.
 */
export class Watch implements Disposable {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #limits: WatchLimits;
  #left: number;
  #since = 0;
  #total: NodeJS.Timeout | undefined;
  #stall: NodeJS.Timeout | undefined;
  #owed = 0;

  constructor(limits: WatchLimits, outer?: AbortSignal) {
    this.#limits = limits;
    this.#left = limits.totalMs;
    this.signal = outer ? AbortSignal.any([this.#controller.signal, outer]) : this.#controller.signal;
  }

  /** Runs an exchange in which the candidate owes an answer. */
  async owing<T>(exchange: () => Promise<T>): Promise<T> {
    if (this.#owed++ === 0) {
      this.#since = performance.now();
      this.#total = this.#faultAfter(Math.max(0, this.#left), `the candidate's answers took over ${this.#limits.totalMs} ms`);
      this.touch();
    }
    try {
      return await exchange();
    } finally {
      if (--this.#owed === 0) {
        this.#left -= performance.now() - this.#since;
        this.#clear();
      }
    }
  }

  /** The candidate sent something. */
  touch(): void {
    clearTimeout(this.#stall);
    if (this.#owed > 0) this.#stall = this.#faultAfter(this.#limits.stallMs, `the candidate sent no byte for ${this.#limits.stallMs} ms`);
  }

  [Symbol.dispose](): void {
    this.#clear();
  }

  #clear(): void {
    clearTimeout(this.#total);
    clearTimeout(this.#stall);
  }

  #faultAfter(ms: number, message: string): NodeJS.Timeout {
    return setTimeout(() => this.#controller.abort(new CandidateFault(message)), ms);
  }
}
