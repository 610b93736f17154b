/**
 * What one job at a time may use: a machine's processors, which a builder and a CPU device share, or an accelerator. The coordinator gives out one job a domain; the
 * next may be here before the last has cleaned up, and waits for it.
 */
export class Machine {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` when what was asked for before has ended. Never rejects for what another's work did. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

/** Runs `work` alone on all of them. Whoever wants several asks for them in one order, so that no two wait for each other. */
export const aloneOn = <T>(machines: readonly Machine[], work: () => Promise<T>): Promise<T> =>
  machines.reduceRight<() => Promise<T>>((inner, machine) => () => machine.alone(inner), work)();
