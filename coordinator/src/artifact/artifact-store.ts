import { randomBytes } from "node:crypto";
import { jetstream, jetstreamManager, type JetStreamClient, type JetStreamManager } from "@nats-io/jetstream";
import { Objm, type ObjectStore } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, CHUNK_BYTES, chunkSubject, nameSubject, objectName, sha256, type ArtifactRef } from "@vibeserve/shared";
import { readArtifact } from "./read-artifact.ts";

/**
 * Content-addressed bytes in the object store; an artifact's name is its sha256.
 *   A1. What `get` returns hashes to the name that was asked for: an older release's agents could write names, and disks fail.
 *   A2. Putting bytes that are there already changes nothing; putting over a corrupt copy repairs it.
 */
export class ArtifactCorruptError extends Error {
  readonly digest: string;
  constructor(digest: string, found: string) {
    super(`artifact ${digest} is corrupt: its bytes hash to ${found}`);
    this.name = "ArtifactCorruptError";
    this.digest = digest;
  }
}

export class ArtifactMissingError extends Error {
  readonly digest: string;
  constructor(digest: string) {
    super(`no artifact ${digest}`);
    this.name = "ArtifactMissingError";
    this.digest = digest;
  }
}

/** A candidate's tree, a log or samples are a few MB at the most; more is a mistake or an attack. */
export const MAX_ARTIFACT_BYTES = 256 * 1024 * 1024;
const TIMEOUT_MS = 30_000;

export class ArtifactStore {
  readonly #at: { store: ObjectStore; js: JetStreamClient; jsm: JetStreamManager };

  private constructor(at: { store: ObjectStore; js: JetStreamClient; jsm: JetStreamManager }) {
    this.#at = at;
  }

  static async open(nc: NatsConnection): Promise<ArtifactStore> {
    const store = await new Objm(nc).open(BUCKETS.artifacts);
    return new ArtifactStore({ store, js: jetstream(nc), jsm: await jetstreamManager(nc) });
  }

  async put(bytes: Uint8Array): Promise<ArtifactRef> {
    if (bytes.length > MAX_ARTIFACT_BYTES)
      throw new RangeError(`an artifact of ${bytes.length} bytes is over the limit of ${MAX_ARTIFACT_BYTES}`);
    const ref = { digest: sha256(bytes), bytes: bytes.length };
    if (!(await this.#holds(ref.digest))) await this.#send(ref, bytes);
    return ref;
  }

  /** Throws ArtifactMissingError or ArtifactCorruptError (A1). */
  async get(digest: string): Promise<Uint8Array> {
    const info = await this.#at.store.info(digest);
    if (!info || info.deleted) throw new ArtifactMissingError(digest);
    if (info.size > MAX_ARTIFACT_BYTES) throw new ArtifactCorruptError(digest, `${info.size} bytes, over the limit`);
    const parts: Uint8Array[] = [];
    if (!(await readArtifact(this.#at.jsm, info, (chunk) => void parts.push(chunk)))) throw new ArtifactMissingError(digest);
    const bytes = Buffer.concat(parts);
    const found = sha256(bytes);
    if (found !== digest) throw new ArtifactCorruptError(digest, found);
    return bytes;
  }

  /** The store's own `putBlob` rolls names up, which this stream allows nobody: an agent would roll up everything. The last name counts. */
  async #send(ref: ArtifactRef, bytes: Uint8Array): Promise<void> {
    const nuid = randomBytes(11).toString("hex");
    let chunks = 0;
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES, chunks++)
      await this.#at.js.publish(chunkSubject(nuid), bytes.subarray(at, at + CHUNK_BYTES), { timeout: TIMEOUT_MS });
    await this.#at.js.publish(nameSubject(ref.digest), objectName(ref, nuid, chunks, new Date()), { timeout: TIMEOUT_MS });
  }

  async #holds(digest: string): Promise<boolean> {
    try {
      await this.get(digest);
      return true;
    } catch (error) {
      if (error instanceof ArtifactMissingError || error instanceof ArtifactCorruptError) return false;
      throw error;
    }
  }
}
