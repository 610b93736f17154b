/**
 * The processors of this machine, which a builder and a CPU device share: whoever works has them alone, or a build would disturb a measurement.
 * Taking never waits; who does not get it gives the job back at once, so that another agent of the pool can have it.
 */
export class Machine {
  #busy = false;
  readonly #waiting = new Set<() => void>();
  readonly #onTaken = new Set<() => void>();

  get busy(): boolean {
    return this.#busy;
  }

  tryTake(): boolean {
    if (this.#busy) return false;
    this.#busy = true;
    for (const tell of [...this.#onTaken]) tell();
    return true;
  }

  release(): void {
    this.#busy = false;
    for (const wake of [...this.#waiting]) wake();
    this.#waiting.clear();
  }

  /** Resolves when it is free, or the signal aborts. */
  async free(signal: AbortSignal): Promise<void> {
    while (this.#busy && !signal.aborted)
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal.removeEventListener("abort", wake);
          this.#waiting.delete(wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal.addEventListener("abort", wake, { once: true });
      });
  }

  /** Calls back at the next taking; returns how to stop that. */
  onTaken(tell: () => void): () => void {
    this.#onTaken.add(tell);
    return () => this.#onTaken.delete(tell);
  }
}
