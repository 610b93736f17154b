import type { JetStreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, chunkSubject } from "@vibeserve/shared";
import { delay } from "../process/backoff.ts";
import { ARTIFACTS_STREAM as STREAM } from "./read-artifact.ts";

/** Chunks without a name that are younger may still get one: a transfer that stalls is given up in a minute. */
export const LEAST_AGE_MS = 3_600_000;
/** An agent's at most, of up to 1 MB each: eight artifacts of the largest size, on their way or given up within the hour. Who has more loses them all. */
const MOST_CHUNKS = 8_192;
/** How often the store's size is asked for. */
const LOOK_MS = 60_000;
/** All names are read, and every transfer's chunks counted, when so much has been stored since, or after so many looks. */
const MANY_BYTES = 2 ** 30;
const LOOKS = 10;
/** Each removal is synced to disk. The rest has the next turn. */
const SLICE_MS = 15_000;

interface Store {
  nc: NatsConnection;
  jsm: JetStreamManager;
  now: () => number;
}

interface SweptStore extends Store {
  log: (event: string, facts: Record<string, unknown>) => void;
  /** Unnamed chunks of an agent; tests lower it. */
  most?: number;
  /** Tests shorten it. */
  lookMs?: number;
}

/** Subjects of chunks that no name says, with how many there are of each; `named`: those that names say. */
async function unnamed(jsm: JetStreamManager, named: ReadonlySet<string>): Promise<[subject: string, chunks: number][]> {
  const { state } = await jsm.streams.info(STREAM, { subjects_filter: chunkSubject(">") });
  return Object.entries(state.subjects ?? {}).filter(([subject]) => !named.has(subject));
}

/** When the last chunk of it was stored; null: there is none any more. */
async function storedAt(jsm: JetStreamManager, subject: string): Promise<number | null> {
  return (await jsm.direct.getMessage(STREAM, { last_by_subj: subject }))?.time.getTime() ?? null;
}

/** What transfers that were given up have left: chunks that no name of these says, and that are older. Resolves with how many transfers'. */
export async function removeUnfinished(
  { jsm, now }: Omit<Store, "nc">,
  named: ReadonlySet<string>,
  olderThanMs: number,
  remove: (subject: string) => Promise<void>,
): Promise<number> {
  const startedAt = now();
  let removed = 0;
  for (const [subject] of await unnamed(jsm, named)) {
    const at = await storedAt(jsm, subject);
    if (at === null || startedAt - at < Math.max(LEAST_AGE_MS, olderThanMs)) continue;
    await remove(subject);
    removed++;
  }
  return removed;
}

/**
 * Bounds what agents store without naming it. An agent may write chunks as it likes (permissions.ts), and no name is the coordinator's before it asked for one.
 *   U1. An agent has at most `most` unnamed chunks, and what it can send between two sweeps.
 *   U2. Unnamed chunks go after an hour. What a name says never goes.
 */
export class UnnamedChunks implements AsyncDisposable {
  readonly #store: SweptStore;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #lastBytes = 0;
  #looks = 0;

  constructor(store: SweptStore) {
    this.#store = store;
    this.#running = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    for (;;) {
      await delay(this.#store.lookMs ?? LOOK_MS, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      // A broker that is away has nothing new.
      await this.#look().catch((error: unknown) => this.#store.log("artifacts.not-swept", { why: String(error) }));
    }
  }

  async #look(): Promise<void> {
    const { state } = await this.#store.jsm.streams.info(STREAM);
    if (++this.#looks < LOOKS && state.bytes - this.#lastBytes < MANY_BYTES) return;
    this.#looks = 0;
    await this.sweep();
    this.#lastBytes = (await this.#store.jsm.streams.info(STREAM)).state.bytes;
  }

  async sweep(): Promise<void> {
    const { nc, jsm, now, log, most = MOST_CHUNKS } = this.#store;
    const startedAt = now();
    const names = await (await new Objm(nc).open(BUCKETS.artifacts)).list();
    const named = new Set(names.map(({ nuid }) => chunkSubject(nuid)));
    const byAgent = Map.groupBy(await unnamed(jsm, named), ([subject]) => ownerOf(subject));
    for (const [agentId, transfers] of byAgent) {
      const chunks = transfers.reduce((n, [, count]) => n + count, 0);
      // The coordinator's own are under no agent's name.
      const tooMany = agentId !== null && chunks > most;
      let removed = 0;
      for (const [subject] of transfers) {
        if (this.#stop.signal.aborted || now() - startedAt > SLICE_MS) break;
        const at = tooMany ? 0 : await storedAt(jsm, subject);
        if (at === null || startedAt - at < LEAST_AGE_MS) continue;
        await jsm.streams.purge(STREAM, { filter: subject });
        removed++;
      }
      if (removed > 0) log("artifacts.swept", { agentId, transfers: removed, chunks, tooMany });
    }
  }
}

/** Whose subject it is (`<agent>.<transfer>`); null: the coordinator's. */
function ownerOf(subject: string): string | null {
  const [agentId = "", transfer] = subject.slice(chunkSubject("").length).split(".");
  return transfer === undefined ? null : agentId;
}
