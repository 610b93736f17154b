import type { ArtifactStore } from "./job-context.ts";

/** The same store for one job: whoever waits for a transfer is told at once when the job is stopped. The transfer goes on, for others or to its own end. */
export function abortable(store: ArtifactStore, signal: AbortSignal): ArtifactStore {
  const unlessAborted = async <T>(work: Promise<T>): Promise<T> => {
    const aborted = Promise.withResolvers<never>();
    const abort = (): void => aborted.reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    try {
      return await Promise.race([work, aborted.promise]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  };
  return {
    put: (bytes) => unlessAborted(store.put(bytes)),
    putFile: (path, maxBytes) => unlessAborted(store.putFile(path, maxBytes)),
    get: (ref, maxBytes) => unlessAborted(store.get(ref, maxBytes)),
    getFile: (ref, maxBytes) => unlessAborted(store.getFile(ref, maxBytes)),
  };
}
