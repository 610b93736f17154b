import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import type { JetStreamClient } from "@nats-io/jetstream";
import { CHUNK_BYTES, chunkSubject, nameSubject, objectName, type ArtifactRef } from "@vibeserve/shared";
import { persist } from "./persist.ts";

const ACK_MS = 5_000;
/** The coordinator reads all chunks before it gives them their name: 512 MiB from a slow disk. It may be asked again. */
const NAME_MS = 30_000;
/** A coordinator may be upgraded meanwhile. */
const NAMELESS_MS = 600_000;

/**
 * Stores a file as an object named by its digest, in the object store's own format. The store's `putBlob` begins anew when the connection breaks; this goes on
 * with the chunk that was not acknowledged. It may have been stored all the same: the broker knows its msg-id then. The broker keeps the chunks under this
 * agent's own subject; the name is a question to the coordinator, which proves it first. What is given up leaves chunks that no object names; the coordinator
 * removes them after an hour.
 */
export async function sendObject(js: JetStreamClient, ref: ArtifactRef, path: string): Promise<void> {
  const id = randomBytes(11).toString("hex");
  const subject = chunkSubject(id);
  await using file = await open(path, "r");
  let chunks = 0;
  for (let at = 0; at < ref.bytes; chunks++) {
    const piece = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, ref.bytes - at));
    const { bytesRead } = await file.read(piece, 0, piece.length, at);
    if (bytesRead === 0) throw new Error(`${path} became shorter while it was sent`);
    const msgID = `${id}.${chunks}`;
    await persist(() => js.publish(subject, piece.subarray(0, bytesRead), { msgID, timeout: ACK_MS }));
    at += bytesRead;
  }
  const name = objectName(ref, id, chunks, new Date());
  await persist(() => js.publish(nameSubject(ref.digest), name, { msgID: id, timeout: NAME_MS }), NAMELESS_MS);
}
