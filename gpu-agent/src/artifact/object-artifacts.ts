import { readFile, stat } from "node:fs/promises";
import { jetstream, jetstreamManager, type JetStreamClient, type JetStreamManager } from "@nats-io/jetstream";
import { Objm, type ObjectStore } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, sha256, type ArtifactRef } from "@vibeserve/shared";
import { once } from "../process/once.ts";
import type { ArtifactStore } from "../worker/job-context.ts";
import { JobError } from "../worker/job-error.ts";
import type { ContentCache } from "./content-cache.ts";
import { isSystemError, persist } from "./persist.ts";
import { readObject } from "./read-object.ts";
import { sendObject } from "./send-object.ts";

/** A log, raw samples: a few MB. More is a mistake or an attack. Trees and builds have limits of their own. */
export const MAX_ARTIFACT_BYTES = 256 * 2 ** 20;
/** An object of this size in the store is read before it is believed; a larger one by its size and by what its writer says: reading costs what sending would. */
const PROVED_BYTES = 4 * 2 ** 20;

interface Store {
  readonly objects: ObjectStore;
  readonly jsm: JetStreamManager;
  readonly js: JetStreamClient;
}

/**
 * Artifacts of the coordinator's object store behind the local cache. Anyone who may write to the bucket may write anything under any name, so bytes are
 * believed only when they hash to what was asked for. One transfer at a time for a digest, whoever asks; a broken connection is waited for. Throws JobError:
 * network `artifact-unavailable`, harness `artifact-missing`, `artifact-corrupt`, `artifact-too-big`; and the system's error of a full disk.
 */
export class ObjectArtifacts implements ArtifactStore {
  readonly #nc: NatsConnection;
  readonly #cache: ContentCache;
  readonly #fetching = new Map<string, Promise<string>>();
  readonly #sending = new Map<string, Promise<void>>();
  #store: Store | null = null;

  constructor(nc: NatsConnection, cache: ContentCache) {
    this.#nc = nc;
    this.#cache = cache;
  }

  async put(bytes: Uint8Array): Promise<ArtifactRef> {
    if (bytes.length > MAX_ARTIFACT_BYTES) throw tooBig(`${bytes.length} bytes`, MAX_ARTIFACT_BYTES);
    return this.#offer(await this.#cache.put(bytes));
  }

  async putFile(path: string, maxBytes = MAX_ARTIFACT_BYTES): Promise<ArtifactRef> {
    const info = await stat(path);
    if (info.size > maxBytes) throw tooBig(`${info.size} bytes in ${path}`, maxBytes);
    return this.#offer(await this.#cache.copy(path));
  }

  async get(ref: ArtifactRef, maxBytes?: number): Promise<Uint8Array> {
    return readFile(await this.getFile(ref, maxBytes));
  }

  async getFile(ref: ArtifactRef, maxBytes = MAX_ARTIFACT_BYTES): Promise<string> {
    if (ref.bytes > maxBytes) throw tooBig(`${ref.bytes} bytes`, maxBytes);
    return once(this.#fetching, ref.digest, async () => (await this.#cache.find(ref)) ?? (await this.#fetch(ref)));
  }

  /** Sends what the cache has, unless it is there. */
  async #offer(ref: ArtifactRef): Promise<ArtifactRef> {
    await once(this.#sending, ref.digest, () =>
      this.#reach(async (store) => {
        if (!(await holds(store, ref))) await sendObject(store.js, ref, this.#cache.path(ref.digest));
      }),
    );
    return ref;
  }

  async #fetch(ref: ArtifactRef): Promise<string> {
    await this.#reach(async ({ objects, jsm }) => {
      const info = await persist(() => objects.info(ref.digest));
      if (info === null || info.deleted) throw missing(ref);
      if (info.size !== ref.bytes) throw corrupt(ref, `has ${info.size} bytes, not ${ref.bytes}`);
      await this.#cache.receive(
        async (write) => {
          if (!(await readObject(jsm, info, write))) throw missing(ref);
        },
        (found) => {
          if (found.digest !== ref.digest) throw corrupt(ref, `hashes to ${found.digest}`);
        },
      );
    });
    // Hashed as it came.
    return this.#cache.path(ref.digest);
  }

  async #reach<T>(use: (store: Store) => Promise<T>): Promise<T> {
    try {
      this.#store ??= await persist(async () => ({
        objects: await new Objm(this.#nc).open(BUCKETS.artifacts),
        jsm: await jetstreamManager(this.#nc),
        js: jetstream(this.#nc),
      }));
      return await use(this.#store);
    } catch (error) {
      if (error instanceof JobError || isSystemError(error)) throw error;
      this.#store = null;
      throw new JobError("network", "artifact-unavailable", `object store: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

async function holds({ objects, jsm }: Store, ref: ArtifactRef): Promise<boolean> {
  const there = await persist(() => objects.info(ref.digest));
  if (there === null || there.deleted || there.size !== ref.bytes) return false;
  if (ref.bytes > PROVED_BYTES) return true;
  const parts: Uint8Array[] = [];
  return (await readObject(jsm, there, (chunk) => void parts.push(chunk))) && sha256(Buffer.concat(parts)) === ref.digest;
}

const tooBig = (what: string, limit: number): JobError =>
  new JobError("harness", "artifact-too-big", `${what} are over the limit of ${limit} bytes`);
const missing = ({ digest }: ArtifactRef): JobError => new JobError("harness", "artifact-missing", `no artifact ${digest}`);
const corrupt = ({ digest }: ArtifactRef, why: string): JobError =>
  new JobError("harness", "artifact-corrupt", `artifact ${digest} ${why}`);
