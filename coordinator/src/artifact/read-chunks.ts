import type { JetStreamManager } from "@nats-io/jetstream";
import { BUCKETS, chunkSubject } from "@vibeserve/shared";

export const ARTIFACTS_STREAM = `OBJ_${BUCKETS.artifacts}`;

/**
 * Hands the chunks that a name says to `take`, unchecked. False: some are missing, or hold more bytes than the name says. By direct gets, not by a consumer, so
 * that nothing is left behind when it stops.
 */
export async function readChunks(
  jsm: JetStreamManager,
  { nuid, size, chunks }: { nuid: string; size: number; chunks: number },
  take: (chunk: Uint8Array) => void,
): Promise<boolean> {
  let [seq, bytes] = [0, 0];
  for (let i = 0; i < chunks && bytes <= size; i++) {
    const where = { seq: seq + 1, next_by_subj: chunkSubject(nuid) };
    // Of a cluster's servers any answers a direct get; one that lags behind may not have it yet, and the leader does.
    const chunk = (await jsm.direct.getMessage(ARTIFACTS_STREAM, where)) ?? (await jsm.streams.getMessage(ARTIFACTS_STREAM, where));
    if (!chunk) return false;
    seq = chunk.seq;
    bytes += chunk.data.length;
    take(chunk.data);
  }
  return bytes === size;
}
