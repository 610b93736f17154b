import { jetstreamManager, type JetStreamManager } from "@nats-io/jetstream";
import { Objm, type ObjectInfo, type ObjectStore } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, sha256, type ArtifactRef } from "@vibeserve/shared";

/**
 * Content-addressed bytes in the object store; an artifact's name is its sha256.
 *   A1. What `get` returns hashes to the name that was asked for: agents can write to the store, so nothing in it is believed.
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
const STREAM = `OBJ_${BUCKETS.artifacts}`;

export class ArtifactStore {
  readonly #store: ObjectStore;
  readonly #jsm: JetStreamManager;

  private constructor(store: ObjectStore, jsm: JetStreamManager) {
    this.#store = store;
    this.#jsm = jsm;
  }

  static async open(nc: NatsConnection): Promise<ArtifactStore> {
    return new ArtifactStore(await new Objm(nc).open(BUCKETS.artifacts), await jetstreamManager(nc));
  }

  async put(bytes: Uint8Array): Promise<ArtifactRef> {
    if (bytes.length > MAX_ARTIFACT_BYTES)
      throw new RangeError(`an artifact of ${bytes.length} bytes is over the limit of ${MAX_ARTIFACT_BYTES}`);
    const ref = { digest: sha256(bytes), bytes: bytes.length };
    if (!(await this.#holds(ref.digest))) await this.#store.putBlob({ name: ref.digest }, bytes, { timeout: TIMEOUT_MS });
    return ref;
  }

  /** Throws ArtifactMissingError or ArtifactCorruptError (A1). */
  async get(digest: string): Promise<Uint8Array> {
    const info = await this.#store.info(digest);
    if (!info || info.deleted) throw new ArtifactMissingError(digest);
    if (info.size > MAX_ARTIFACT_BYTES) throw new ArtifactCorruptError(digest, `${info.size} bytes, over the limit`);
    const bytes = await this.#chunks(info);
    const found = sha256(bytes);
    if (found !== digest) throw new ArtifactCorruptError(digest, found);
    return bytes;
  }

  /** By direct gets, not by the object store's own consumer, which an agent's credential doesn't allow. */
  async #chunks(info: ObjectInfo): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let seq = 0;
    for (let i = 0; i < info.chunks; i++) {
      const where = { seq: seq + 1, next_by_subj: `$O.${BUCKETS.artifacts}.C.${info.nuid}` };
      // Of a cluster's servers any answers a direct get; one that lags behind may not have it yet, and the leader does.
      const chunk = (await this.#jsm.direct.getMessage(STREAM, where)) ?? (await this.#jsm.streams.getMessage(STREAM, where));
      if (!chunk) throw new ArtifactMissingError(info.name);
      parts.push(chunk.data);
      seq = chunk.seq;
    }
    return Buffer.concat(parts);
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
