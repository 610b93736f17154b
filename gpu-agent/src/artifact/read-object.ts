import type { JetStreamManager } from "@nats-io/jetstream";
import type { ObjectInfo } from "@nats-io/obj";
import { BUCKETS, readChunks } from "@vibeserve/shared";
import { persist } from "./persist.ts";

const STREAM = `OBJ_${BUCKETS.artifacts}`;

/**
 * Hands an object's chunks to `take` one after the other, unchecked; false when chunks are missing, or hold more bytes than the object says.
 * A broken connection is waited for, and the next chunk asked for then.
 */
export async function readObject(
  jsm: JetStreamManager,
  info: ObjectInfo,
  take: (chunk: Uint8Array) => Promise<void> | void,
): Promise<boolean> {
  return readChunks(
    info,
    // Of a cluster's servers any answers a direct get; one that lags behind may not have it yet, and the leader does.
    (where) => persist(async () => (await jsm.direct.getMessage(STREAM, where)) ?? jsm.streams.getMessage(STREAM, where)),
    take,
  );
}
