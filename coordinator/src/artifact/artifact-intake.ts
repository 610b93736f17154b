import { createHash } from "node:crypto";
import type { JetStreamClient, JetStreamManager } from "@nats-io/jetstream";
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import { Digest, chunkSubject, nameSubject, objectName, senderOf, subjects } from "@vibeserve/shared";
import { z } from "zod";
import { delay } from "../process/backoff.ts";
import { ARTIFACTS_STREAM, readArtifact } from "./read-artifact.ts";

/** A build's output, the largest of what agents make. */
const MAX_BYTES = 512 * 1024 * 1024;
/** Chunks are 512 KiB, an older release's 128 KiB. Many tiny ones would keep this process busy for their names' sake. */
const LEAST_CHUNK_BYTES = 64 * 1024;
/** Jobs of an agent end one after the other, each with a log and perhaps a tree: more at once is none of ours. */
const MAX_WAITING = 32;

const READ_TRIES = 3;
const READ_AGAIN_MS = 200;

const Claim = z
  .looseObject({
    name: Digest,
    nuid: z.string().regex(/^[A-Za-z0-9]{16,40}$/),
    size: z.int().min(0).max(MAX_BYTES),
    chunks: z.int().min(0),
  })
  .refine(({ size, chunks }) => chunks <= 1 + size / LEAST_CHUNK_BYTES, "it is in too many chunks");

/**
 * Gives what an agent stored its name, the digest of its bytes.
 *   N1. Only the coordinator writes names; an agent's chunks lie under a subject of its own, which no other can write to.
 *   N2. A name is written once its bytes were read and hash to it. What does not is removed, so that asking again costs nothing.
 *   N3. Asked again, it answers the same.
 * The question is a publish of the object store, as agents of the release before make it too: the broker leads it here instead of into the stream, and the
 * answer is what a stream would say.
 */
export class ArtifactIntake implements AsyncDisposable {
  readonly #nc: NatsConnection;
  readonly #js: JetStreamClient;
  readonly #jsm: JetStreamManager;
  readonly #log: (event: string, facts: Record<string, unknown>) => void;
  /** An agent's questions wait for each other, and for no other agent's. */
  readonly #waiting = new Map<string, { count: number; last: Promise<void> }>();
  readonly #unsubscribe: () => void;

  constructor(
    { nc, js, jsm }: { nc: NatsConnection; js: JetStreamClient; jsm: JetStreamManager },
    log: (event: string, facts: Record<string, unknown>) => void,
  ) {
    [this.#nc, this.#js, this.#jsm, this.#log] = [nc, js, jsm, log];
    const subscription = nc.subscribe(subjects.artifact("*", "*"), {
      callback: (error, message) => (error ? undefined : this.#asked(message)),
    });
    this.#unsubscribe = () => subscription.unsubscribe();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unsubscribe();
    await Promise.all([...this.#waiting.values()].map(({ last }) => last));
  }

  /** Runs a task after all that the agent has asked so far, and before what it asks from then on. */
  async inTurn<T>(agentId: string, task: () => Promise<T>): Promise<T> {
    const before = this.#waiting.get(agentId) ?? { count: 0, last: Promise.resolve() };
    const run = before.last.then(task);
    const over = () => {
      const now = this.#waiting.get(agentId);
      if (now && --now.count === 0) this.#waiting.delete(agentId);
    };
    this.#waiting.set(agentId, { count: before.count + 1, last: run.then(over, over) });
    return run;
  }

  #asked(message: Msg): void {
    const agentId = senderOf(message.subject);
    // Unanswered, it asks again.
    if ((this.#waiting.get(agentId)?.count ?? 0) >= MAX_WAITING) return;
    this.inTurn(agentId, async () => {
      const why = await this.#name(agentId, message);
      const error = why === null ? {} : { error: { code: 400, err_code: 0, description: why } };
      if (why !== null) this.#log("artifact.refused", { agentId, why });
      if (!this.#nc.isClosed()) message.respond(JSON.stringify({ stream: ARTIFACTS_STREAM, seq: 1, ...error }));
    }).catch((error: unknown) => this.#log("artifact.not-named", { agentId, why: String(error) }));
  }

  /** Null: it has its name. Else why not. */
  async #name(agentId: string, message: Msg): Promise<string | null> {
    let said: unknown;
    try {
      said = JSON.parse(message.string());
    } catch {
      return "not a name of an object";
    }
    const parsed = Claim.safeParse(said);
    if (!parsed.success) return `not a name of an object: ${parsed.error.issues.map((i) => i.message).join("; ")}`.slice(0, 300);
    const { name, size, chunks } = parsed.data;
    const nuid = `${agentId}.${parsed.data.nuid}`;
    const known = await this.#jsm.direct.getMessage(ARTIFACTS_STREAM, { last_by_subj: nameSubject(name) });
    if (known && known.json<{ nuid?: unknown }>().nuid === nuid) return null;
    const { whole, found } = await this.#read({ nuid, size, chunks });
    if (!whole || found !== name) {
      await this.#jsm.streams.purge(ARTIFACTS_STREAM, { filter: chunkSubject(nuid) });
      return whole
        ? `artifact ${name} is corrupt: its bytes hash to ${found}`
        : `artifact ${name} lacks chunks, or has more than its ${size} bytes`;
    }
    await this.#js.publish(nameSubject(name), objectName({ digest: name, bytes: size }, nuid, chunks, new Date()));
    return null;
  }

  /** What is not there may be so on a server of a cluster that is behind: it is looked for again. */
  async #read(of: { nuid: string; size: number; chunks: number }): Promise<{ whole: boolean; found: string }> {
    for (let tries = 1; ; tries++) {
      const hash = createHash("sha256");
      const whole = await readArtifact(this.#jsm, of, (chunk) => void hash.update(chunk));
      if (whole || tries === READ_TRIES) return { whole, found: hash.digest("hex") };
      await delay(READ_AGAIN_MS * tries);
    }
  }
}
