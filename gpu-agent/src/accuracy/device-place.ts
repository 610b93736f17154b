import { unlessAborted } from "../process/unless-aborted.ts";

/** One who may have a process on the device. */
export interface Tenant {
  /** Ends that process. Never rejects. */
  leave(): Promise<void>;
}

/**
 * The accelerator as an agent's references share it. 1. One of them has a process there at a time, and they answer in the order of asking. 2. While an engine that takes
 * most of the device's memory runs, none is there: fill(). 3. Whoever waits for a turn and is cancelled is told at once, with the signal's reason.
 */
export class DevicePlace {
  #turn: Promise<unknown> = Promise.resolve();
  #tenant: Tenant | null = null;
  #engines = 0;

  /** The device's memory is an engine's: a reference that starts now belongs on the host. */
  get full(): boolean {
    return this.#engines > 0;
  }

  /** Runs `work` in its turn, when every other's process has ended. */
  use<T>(tenant: Tenant, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.#next(async () => {
      if (this.#tenant !== tenant) await this.#empty();
      this.#tenant = tenant;
      return work();
    }, signal);
  }

  /** Empties the device for an engine; the returned function says that it has ended. What answered on the host meanwhile goes back to the device. */
  async fill(signal?: AbortSignal): Promise<() => void> {
    await this.#next(async () => {
      this.#engines++;
      await this.#empty();
    }, signal);
    let filled = true;
    return () => {
      if (filled) this.#engines--;
      filled = false;
      void this.#next(() => this.#empty());
    };
  }

  async #empty(): Promise<void> {
    await this.#tenant?.leave();
    this.#tenant = null;
  }

  async #next<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const [before, own] = [this.#turn, Promise.withResolvers<undefined>()];
    this.#turn = before.then(() => own.promise);
    try {
      await (signal ? unlessAborted(before, signal) : before);
      return await work();
    } finally {
      own.resolve(undefined);
    }
  }
}
