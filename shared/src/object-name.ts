import type { ArtifactRef } from "./ids.ts";
import { BUCKETS } from "./subjects.ts";

/** Half of what the broker takes in one message: 200 MB are 400 messages, each synced before it is acknowledged. */
export const CHUNK_BYTES = 512 * 1024;

/** Where the chunks of an object lie. */
export const chunkSubject = (nuid: string): string => `$O.${BUCKETS.artifacts}.C.${nuid}`;
/** Where an object's name lies; a later message under it replaces an earlier one. base64 for subjects, with its padding, as the object store writes it. */
export const nameSubject = (digest: string): string => `$O.${BUCKETS.artifacts}.M.${urlSafe(Buffer.from(digest))}`;

/** What a name says, in the object store's own format (nats-architecture-and-design, ADR-20): which chunks, one after the other, are the artifact. */
export const objectName = (ref: ArtifactRef, nuid: string, chunks: number, at: Date): string =>
  JSON.stringify({
    ...{ name: ref.digest, bucket: BUCKETS.artifacts, nuid, size: ref.bytes, chunks, mtime: at.toISOString(), deleted: false },
    digest: `SHA-256=${urlSafe(Buffer.from(ref.digest, "hex"))}`,
    options: { max_chunk_size: CHUNK_BYTES },
  });

const urlSafe = (bytes: Buffer): string => bytes.toString("base64").replaceAll("+", "-").replaceAll("/", "_");
