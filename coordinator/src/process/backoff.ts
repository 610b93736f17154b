/** Delays that double from `firstMs` to `maxMs`, each with ±25 % jitter so that many waiters don't come back at once. */
export class Backoff {
  readonly #firstMs: number;
  readonly #maxMs: number;
  #nextMs: number;

  constructor(firstMs: number, maxMs: number) {
    this.#firstMs = firstMs;
    this.#maxMs = maxMs;
    this.#nextMs = firstMs;
  }

  nextMs(): number {
    const delay = this.#nextMs;
    this.#nextMs = Math.min(this.#maxMs, delay * 2);
    return delay * (0.75 + Math.random() / 2);
  }

  reset(): void {
    this.#nextMs = this.#firstMs;
  }
}

/**
 * How long the first connection of a pod is tried: a network plugin that enforces NetworkPolicies refuses a new pod's connections until it has written the pod's
 * rules, which takes seconds, and longer on a node where many pods start.
 */
export const YOUNG_POD_MS = 30_000;

const AGAIN_MS = 500;

/** Tries every 500 ms until it comes true. Throws the last error after `patienceMs` (0: it tries once), and at once one that is `final`. */
export async function patiently<T>(
  patienceMs: number,
  attempt: () => Promise<T>,
  final: (error: unknown) => boolean = () => false,
): Promise<T> {
  for (const until = Date.now() + patienceMs; ;) {
    try {
      return await attempt();
    } catch (error) {
      if (final(error) || Date.now() >= until) throw error;
    }
    await delay(AGAIN_MS);
  }
}

/** Resolves after `ms`, or at once when the signal aborts. Never rejects. */
export async function delay(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
}
