import { JetStreamError, type BatchCallback, type StoredMsg } from "@nats-io/jetstream";
import { TimeoutError, type QueuedIterator } from "@nats-io/transport-node";

/** A broker that is restarted, or meets a slow disk, answers within this. */
const SILENT_MS = 5_000;

/**
 * Takes each message that a direct get of many finds, in order; returns when there are no more. Throws what `take` throws, and TimeoutError where the broker
 * falls silent in the middle: a restart of it ends what it was sending.
 */
export async function forEachStored(
  get: (callback: BatchCallback<StoredMsg>) => Promise<QueuedIterator<StoredMsg>>,
  take: (message: StoredMsg) => unknown,
): Promise<void> {
  const over = Promise.withResolvers<undefined>();
  let heardAt = performance.now();
  const found = await get((done, message) => {
    heardAt = performance.now();
    if (done) {
      if (done.err && !isNotFound(done.err)) over.reject(done.err);
      else over.resolve(undefined);
      return;
    }
    try {
      take(message);
    } catch (error) {
      over.reject(error);
      found.stop();
    }
  });
  const watch = setInterval(() => {
    if (performance.now() - heardAt > SILENT_MS) found.stop(new TimeoutError());
  }, SILENT_MS / 5);
  try {
    await over.promise;
  } finally {
    clearInterval(watch);
  }
}

/** How the broker says that there is none, or no more. */
const isNotFound = (error: Error): boolean => error instanceof JetStreamError && "code" in error && error.code === 404;
