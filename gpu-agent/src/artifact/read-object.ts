import type { JetStreamManager } from "@nats-io/jetstream";
import type { ObjectInfo } from "@nats-io/obj";
import { BUCKETS } from "@vibeserve/shared";
import { persist } from "./persist.ts";

const STREAM = `OBJ_${BUCKETS.artifacts}`;

/**
 * Hands an object's chunks to `take` one after the other, unchecked, by direct gets; false when chunks are missing, or hold more bytes than the object says.
 * A broken connection is waited for, and the next chunk asked for then. The store's own `getBlob` makes a consumer on the coordinator's stream, which an
 * agent's credential does not allow: a consumer can be told to deliver anywhere.
 */
export async function readObject(
  jsm: JetStreamManager,
  info: ObjectInfo,
  take: (chunk: Uint8Array) => Promise<void> | void,
): Promise<boolean> {
  let seq = 0;
  let bytes = 0;
  for (let i = 0; i < info.chunks && bytes < info.size; i++) {
    const where = { seq: seq + 1, next_by_subj: `$O.${BUCKETS.artifacts}.C.${info.nuid}` };
    // Of a cluster's servers any answers a direct get; one that lags behind may not have it yet, and the leader does.
    const get = async () => (await jsm.direct.getMessage(STREAM, where)) ?? (await jsm.streams.getMessage(STREAM, where));
    const chunk = await persist(get);
    if (!chunk) return false;
    seq = chunk.seq;
    bytes += chunk.data.length;
    if (bytes > info.size) return false;
    await take(chunk.data);
  }
  return bytes === info.size;
}
