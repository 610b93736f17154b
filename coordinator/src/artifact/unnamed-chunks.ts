import type { JetStreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, chunkSubject, nameSubject } from "@vibeserve/shared";
import { z } from "zod";
import { delay } from "../process/backoff.ts";
import type { ArtifactIntake } from "./artifact-intake.ts";
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

const Name = z.looseObject({ nuid: z.string() });

interface Store {
  nc: NatsConnection;
  jsm: JetStreamManager;
}

interface SweptStore extends Store, Pick<ArtifactIntake, "inTurn"> {
  log: (event: string, facts: Record<string, unknown>) => void;
  /** Unnamed chunks of an agent; tests lower it. */
  most?: number;
  /** Tests shorten these. */
  lookMs?: number;
  leastAgeMs?: number;
}

const subjectsOf = async (jsm: JetStreamManager, filter: string): Promise<[subject: string, messages: number][]> =>
  Object.entries((await jsm.streams.info(STREAM, { subjects_filter: filter })).state.subjects ?? {});

/** Subjects of chunks that names say. The store's own listing ends like a whole one where it was cut short, so each name that it lacks is asked for. */
async function named({ nc, jsm }: Store): Promise<Set<string>> {
  const names = await subjectsOf(jsm, `$O.${BUCKETS.artifacts}.M.>`);
  const listed = await (await new Objm(nc).open(BUCKETS.artifacts)).list();
  const known = new Set(listed.map(({ name }) => nameSubject(name)));
  const said = new Set(listed.map(({ nuid }) => chunkSubject(nuid)));
  for (const [subject] of names) {
    if (known.has(subject)) continue;
    const name = Name.safeParse((await jsm.streams.getMessage(STREAM, { last_by_subj: subject }))?.json());
    if (name.success) said.add(chunkSubject(name.data.nuid));
  }
  return said;
}

/** Subjects of chunks that no name says, with how many there are of each. In this order: what is named meanwhile is not among them. */
async function unnamed(store: Store): Promise<[subject: string, chunks: number][]> {
  const chunks = await subjectsOf(store.jsm, chunkSubject(">"));
  const said = await named(store);
  return chunks.filter(([subject]) => !said.has(subject));
}

/** When the last chunk of it was stored; null: there is none any more. */
async function storedAt(jsm: JetStreamManager, subject: string): Promise<number | null> {
  return (await jsm.direct.getMessage(STREAM, { last_by_subj: subject }))?.time.getTime() ?? null;
}

/** What transfers that were given up have left: chunks that no name says, and that were stored before. Resolves with how many transfers'. */
export async function removeUnfinished(store: Store, before: number, remove: (subject: string) => Promise<void>): Promise<number> {
  let removed = 0;
  for (const [subject] of await unnamed(store)) {
    const at = await storedAt(store.jsm, subject);
    if (at === null || at > before) continue;
    await remove(subject);
    removed++;
  }
  return removed;
}

/**
 * Bounds what agents store without naming it. An agent may write chunks as it likes (permissions.ts), and no name is the coordinator's before it asked for one.
 *   U1. An agent has at most `most` unnamed chunks, and what it can send between two sweeps.
 *   U2. Unnamed chunks go after an hour. What a name says never goes: while an agent's go, none of its names is given.
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
    const { jsm, log, inTurn, most = MOST_CHUNKS, leastAgeMs = LEAST_AGE_MS } = this.#store;
    const ends = performance.now() + SLICE_MS;
    const old = (await brokersTime(jsm)) - leastAgeMs;
    const byAgent = Map.groupBy(await unnamed(this.#store), ([subject]) => ownerOf(subject));
    for (const [agentId, transfers] of byAgent) {
      const chunks = transfers.reduce((n, [, count]) => n + count, 0);
      // The coordinator's own are under no agent's name.
      const tooMany = agentId !== null && chunks > most;
      if (this.#stop.signal.aborted || performance.now() > ends) return;
      const going: string[] = [];
      for (const [subject] of transfers) {
        const at = tooMany ? -Infinity : await storedAt(jsm, subject);
        if (at !== null && at <= old) going.push(subject);
      }
      if (going.length === 0) continue;
      const purge = async (): Promise<number> => {
        const said = await named(this.#store);
        let removed = 0;
        for (const subject of going.filter((one) => !said.has(one))) {
          if (this.#stop.signal.aborted || performance.now() > ends) break;
          await jsm.streams.purge(STREAM, { filter: subject });
          removed++;
        }
        return removed;
      };
      const removed = await (agentId === null ? purge() : inTurn(agentId, purge));
      if (removed > 0) log("artifacts.swept", { agentId, transfers: removed, chunks, tooMany });
    }
  }
}

/** What stamps chunks: its clock and this one may differ. Absent from the answer: this one. */
async function brokersTime(jsm: JetStreamManager): Promise<number> {
  const info = await jsm.streams.info(STREAM);
  return "ts" in info && typeof info.ts === "string" ? Date.parse(info.ts) : Date.now();
}

/** Whose subject it is (`<agent>.<transfer>`); null: the coordinator's. */
function ownerOf(subject: string): string | null {
  const [agentId = "", transfer] = subject.slice(chunkSubject("").length).split(".");
  return transfer === undefined ? null : agentId;
}
