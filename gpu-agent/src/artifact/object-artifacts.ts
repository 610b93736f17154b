import { readFile, stat } from "node:fs/promises";
import { jetstreamManager, type JetStreamManager } from "@nats-io/jetstream";
import { Objm, type ObjectStore } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, sha256, type ArtifactRef } from "@vibeserve/shared";
import type { ArtifactStore } from "../worker/job-context.ts";
import { JobError } from "../worker/job-error.ts";
import type { ContentCache } from "./content-cache.ts";
import { readObject } from "./read-object.ts";

/** A candidate's tree, a log, raw samples: a few MB. More is a mistake or an attack. */
export const MAX_ARTIFACT_BYTES = 256 * 2 ** 20;
/** One transfer, at worst 256 MB at the 50 MB/s that the store was measured at, several times over. Longer: the broker is gone, or chunks are. */
const TIMEOUT_MS = 30_000;

/**
 * Artifacts of the coordinator's object store behind the local cache. Anyone who may write to the bucket may write anything under any name, so bytes are
 * believed only when they hash to what was asked for. Throws JobError: network `artifact-unavailable`, harness `artifact-missing`, `artifact-corrupt`,
 * `artifact-too-big`.
 */
export class ObjectArtifacts implements ArtifactStore {
  readonly #nc: NatsConnection;
  readonly #cache: ContentCache;
  #store: { objects: ObjectStore; jsm: JetStreamManager } | null = null;

  constructor(nc: NatsConnection, cache: ContentCache) {
    this.#nc = nc;
    this.#cache = cache;
  }

  async put(bytes: Uint8Array): Promise<ArtifactRef> {
    if (bytes.length > MAX_ARTIFACT_BYTES) throw tooBig(`${bytes.length} bytes`);
    const ref = await this.#cache.put(bytes);
    await this.#reach(async ({ objects, jsm }) => {
      const there = await objects.info(ref.digest);
      // Same name, same size is not believed, but our copy is only better if theirs is bad: whoever reads checks, and asks for it again.
      if (there !== null && !there.deleted && there.size === bytes.length) {
        const held = await readObject(jsm, there);
        if (held !== null && sha256(held) === ref.digest) return;
      }
      await objects.putBlob({ name: ref.digest }, bytes, { timeout: TIMEOUT_MS });
    });
    return ref;
  }

  async putFile(path: string): Promise<ArtifactRef> {
    const info = await stat(path);
    if (info.size > MAX_ARTIFACT_BYTES) throw tooBig(`${info.size} bytes in ${path}`);
    return this.put(await readFile(path));
  }

  async get(ref: ArtifactRef): Promise<Uint8Array> {
    return readFile(await this.getFile(ref));
  }

  async getFile(ref: ArtifactRef): Promise<string> {
    if (ref.bytes > MAX_ARTIFACT_BYTES) throw tooBig(`${ref.bytes} bytes`);
    const known = await this.#cache.find(ref);
    if (known !== null) return known;
    const bytes = await this.#reach((store) => fetchBlob(store, ref));
    await this.#cache.put(bytes);
    const path = await this.#cache.find(ref);
    if (path === null) throw new JobError("harness", "artifact-corrupt", `artifact ${ref.digest} was damaged on this agent's disk`);
    return path;
  }

  async #reach<T>(use: (store: { objects: ObjectStore; jsm: JetStreamManager }) => Promise<T>): Promise<T> {
    try {
      this.#store ??= { objects: await new Objm(this.#nc).open(BUCKETS.artifacts), jsm: await jetstreamManager(this.#nc) };
      return await within(TIMEOUT_MS, use(this.#store));
    } catch (error) {
      if (error instanceof JobError) throw error;
      this.#store = null;
      throw new JobError("network", "artifact-unavailable", `object store: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

/** The client waits for ever for a chunk that is not there. */
async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function fetchBlob(store: { objects: ObjectStore; jsm: JetStreamManager }, ref: ArtifactRef): Promise<Uint8Array> {
  const info = await store.objects.info(ref.digest);
  if (info === null || info.deleted) throw new JobError("harness", "artifact-missing", `no artifact ${ref.digest}`);
  if (info.size !== ref.bytes)
    throw new JobError("harness", "artifact-corrupt", `artifact ${ref.digest} has ${info.size} bytes, not ${ref.bytes}`);
  const bytes = await readObject(store.jsm, info);
  if (bytes === null) throw new JobError("harness", "artifact-missing", `no artifact ${ref.digest}`);
  const found = sha256(bytes);
  if (found !== ref.digest) throw new JobError("harness", "artifact-corrupt", `artifact ${ref.digest} hashes to ${found}`);
  return bytes;
}

const tooBig = (what: string): JobError =>
  new JobError("harness", "artifact-too-big", `${what} are over the limit of ${MAX_ARTIFACT_BYTES} bytes`);
