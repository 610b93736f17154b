import type { JetStreamManager } from "@nats-io/jetstream";
import { BUCKETS, readChunks } from "@vibeserve/shared";

export const ARTIFACTS_STREAM = `OBJ_${BUCKETS.artifacts}`;

/** Hands the chunks that a name says to `take`, unchecked. False: some are missing, or hold more bytes than the name says. */
export async function readArtifact(
  jsm: JetStreamManager,
  name: Parameters<typeof readChunks>[0],
  take: (chunk: Uint8Array) => void,
): Promise<boolean> {
  return readChunks(
    name,
    // Of a cluster's servers any answers a direct get; one that lags behind may not have it yet, and the leader does.
    async (where) => (await jsm.direct.getMessage(ARTIFACTS_STREAM, where)) ?? jsm.streams.getMessage(ARTIFACTS_STREAM, where),
    take,
  );
}
