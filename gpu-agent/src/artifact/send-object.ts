import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import type { JetStreamClient } from "@nats-io/jetstream";
import { headers } from "@nats-io/transport-node";
import { BUCKETS, type ArtifactRef } from "@vibeserve/shared";
import { persist } from "./persist.ts";

/** Half of what the broker takes in one message: 200 MB are 400 messages, each synced before it is acknowledged. */
const CHUNK_BYTES = 512 * 1024;
const ACK_MS = 5_000;

/**
 * Stores a file as an object named by its digest, in the object store's own format. The store's `putBlob` begins anew when the connection breaks; this goes on
 * with the chunk that was not acknowledged. It may have been stored all the same: the broker knows its msg-id then. What is given up leaves chunks that no
 * object names; `vibeserve artifacts prune` removes them.
 */
export async function sendObject(js: JetStreamClient, ref: ArtifactRef, path: string): Promise<void> {
  const id = randomBytes(11).toString("hex");
  const subject = `$O.${BUCKETS.artifacts}.C.${id}`;
  const file = await open(path, "r");
  let chunks = 0;
  try {
    for (let at = 0; at < ref.bytes; chunks++) {
      const piece = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, ref.bytes - at));
      const { bytesRead } = await file.read(piece, 0, piece.length, at);
      if (bytesRead === 0) throw new Error(`${path} became shorter while it was sent`);
      const msgID = `${id}.${chunks}`;
      await persist(() => js.publish(subject, piece.subarray(0, bytesRead), { msgID, timeout: ACK_MS }));
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
  const meta = {
    ...{ name: ref.digest, bucket: BUCKETS.artifacts, nuid: id, size: ref.bytes, chunks, mtime: new Date().toISOString(), deleted: false },
    digest: `SHA-256=${urlSafe(Buffer.from(ref.digest, "hex"))}`,
    options: { max_chunk_size: CHUNK_BYTES },
  };
  const rollup = headers();
  rollup.set("Nats-Rollup", "sub");
  const metaSubject = `$O.${BUCKETS.artifacts}.M.${urlSafe(Buffer.from(ref.digest))}`;
  await persist(() => js.publish(metaSubject, JSON.stringify(meta), { msgID: id, headers: rollup, timeout: ACK_MS }));
}

/** base64 for subjects, with its padding, as the object store writes it. */
const urlSafe = (bytes: Buffer): string => bytes.toString("base64").replaceAll("+", "-").replaceAll("/", "_");
