import type { JetStreamManager } from "@nats-io/jetstream";
import type { ObjectInfo } from "@nats-io/obj";
import { BUCKETS } from "@vibeserve/shared";

/**
 * An object's bytes by direct gets, unchecked; null when chunks are missing. The store's own `getBlob` makes a consumer on the coordinator's stream,
 * which an agent's credential does not allow: a consumer can be told to deliver anywhere.
 */
export async function readObject(jsm: JetStreamManager, info: ObjectInfo): Promise<Uint8Array | null> {
  const parts: Uint8Array[] = [];
  let seq = 0;
  for (let i = 0; i < info.chunks; i++) {
    const chunk = await jsm.direct.getMessage(`OBJ_${BUCKETS.artifacts}`, {
      seq: seq + 1,
      next_by_subj: `$O.${BUCKETS.artifacts}.C.${info.nuid}`,
    });
    if (!chunk) return null;
    parts.push(chunk.data);
    seq = chunk.seq;
  }
  return Buffer.concat(parts);
}
