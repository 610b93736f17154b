import { unlessAborted } from "../process/unless-aborted.ts";
import type { ArtifactStore } from "./job-context.ts";

/** The same store for one job: whoever waits for a transfer is told at once when the job is stopped. The transfer goes on, for others or to its own end. */
export const abortable = (store: ArtifactStore, signal: AbortSignal): ArtifactStore => ({
  put: (bytes) => unlessAborted(store.put(bytes), signal),
  putFile: (path, maxBytes) => unlessAborted(store.putFile(path, maxBytes), signal),
  get: (ref, maxBytes) => unlessAborted(store.get(ref, maxBytes), signal),
  getFile: (ref, maxBytes) => unlessAborted(store.getFile(ref, maxBytes), signal),
});
