import { chunkSubject } from "./object-name.ts";

/** The first message of that subject from that sequence on. */
interface ChunkPlace {
  seq: number;
  next_by_subj: string;
}

/**
 * Hands the chunks that an object's name says to `take`, one after the other, unchecked. `get` asks the stream; null: it has none there. By gets, not by the object
 * store's own consumer: that can be told to deliver anywhere, so no agent may make one, and it is left behind when it stops. False: chunks are missing, or hold more
 * bytes than the name says.
 */
export async function readChunks(
  { nuid, size, chunks }: { nuid: string; size: number; chunks: number },
  get: (where: ChunkPlace) => Promise<{ seq: number; data: Uint8Array } | null>,
  take: (chunk: Uint8Array) => Promise<void> | void,
): Promise<boolean> {
  let [seq, bytes] = [0, 0];
  for (let i = 0; i < chunks; i++) {
    const chunk = await get({ seq: seq + 1, next_by_subj: chunkSubject(nuid) });
    if (!chunk) return false;
    seq = chunk.seq;
    bytes += chunk.data.length;
    if (bytes > size) return false;
    await take(chunk.data);
  }
  return bytes === size;
}
