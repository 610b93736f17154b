import type { JetStreamClient, JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { CodecError, decode, STREAMS, subjects, CampaignEvent, type CampaignFact } from "@vibeserve/shared";
import { lastStored, storeVerdict } from "../bus/store-verdict.ts";
import { Backoff, delay } from "../process/backoff.ts";
import { decodeNext, eventAfter, type Logged } from "./chain.ts";
import { forEachStored } from "./stored.ts";

/**
 * The append-only history of campaigns on VS_EVENTS.
 *   E1. One owner: an append names the subject's last sequence that its writer knows; a second writer's append fails with LogOwnershipError.
 *   E2. Each event carries the hash of the event before it; reading checks the whole chain.
 *   E3. An append whose answer was lost (broker restarted) is neither lost nor doubled: the writer looks at the tail before it tries again.
 *   E4. An event is published for live views only after it is stored.
 */
export interface LogBus {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
  /** Hears of every store, answered (an event's with the time that it took) or of what it failed; `stalled` resolves when trying again makes sense. */
  store?: { stored(tookMs?: number): void; stalled(error: unknown): Promise<void> };
}

export class LogOwnershipError extends Error {
  readonly campaign: string;
  constructor(campaign: string, seq: number) {
    super(`campaign ${campaign}: event ${seq} was refused, another coordinator has appended to this log; this one stops writing`);
    this.name = "LogOwnershipError";
    this.campaign = campaign;
  }
}

/** A sync to disk took < 50 ms on busy machines; trying again too early is harmless (E3). */
const ACK_TIMEOUT_MS = 2_000;

export async function listCampaigns(bus: LogBus): Promise<string[]> {
  const info = await bus.jsm.streams.info(STREAMS.events, { subjects_filter: subjects.event("*") });
  const prefix = subjects.event("");
  return Object.keys(info.state.subjects ?? {})
    .map((subject) => subject.slice(prefix.length))
    .sort();
}

/** Events that are asked for at once: the broker sends them in a row. */
const BATCH = 1_000;
/** The broker answers no more than 1,024 subjects at once. */
const SUBJECTS_AT_ONCE = 500;

/** Every event of a campaign, oldest first, its chain verified (E2). */
export async function readLog(bus: LogBus, campaign: string): Promise<Logged[]> {
  const events: Logged[] = [];
  for (let read = -1; read < events.length;) {
    read = events.length;
    const from = { seq: (events.at(-1)?.streamSeq ?? 0) + 1, next_by_subj: subjects.event(campaign), batch: BATCH };
    await forEachStored(
      (callback) => bus.jsm.direct.getBatch(STREAMS.events, { ...from, callback }),
      ({ data, seq }) => events.push({ event: decodeNext(campaign, data, events.at(-1) ?? null), bytes: data, streamSeq: seq }),
    );
  }
  return events;
}

/** Campaigns whose last event says that they have ended. A hint for what to read first: their chains are not checked. */
export async function readEnded(bus: LogBus, campaigns: readonly string[]): Promise<Set<string>> {
  const ended = new Set<string>();
  for (let i = 0; i < campaigns.length; i += SUBJECTS_AT_ONCE) {
    const multi_last = campaigns.slice(i, i + SUBJECTS_AT_ONCE).map((id) => subjects.event(id));
    await forEachStored(
      (callback) => bus.jsm.direct.getLastMessagesFor(STREAMS.events, { multi_last, callback }),
      ({ data, subject }) => {
        try {
          const { campaign, fact } = decode(CampaignEvent, data, subject);
          if (fact.type === "campaign.ended" && subject === subjects.event(campaign)) ended.add(campaign);
        } catch (error) {
          if (!(error instanceof CodecError)) throw error;
          // Reading its log will say so.
        }
      },
    );
  }
  return ended;
}

export class CampaignLog {
  readonly campaign: string;
  readonly #bus: LogBus;
  readonly #now: () => number;
  #tail: Logged | null;
  #busy = false;

  private constructor(bus: LogBus, campaign: string, tail: Logged | null, now: () => number) {
    this.#bus = bus;
    this.campaign = campaign;
    this.#tail = tail;
    this.#now = now;
  }

  /** Replays the campaign; the log continues after its last event. */
  static async open(bus: LogBus, campaign: string, now: () => number = Date.now): Promise<{ log: CampaignLog; events: Logged[] }> {
    const events = await readLog(bus, campaign);
    return { log: new CampaignLog(bus, campaign, events.at(-1) ?? null, now), events };
  }

  /** Stores one fact. Not to be called again before it returns. While the broker is away it waits for it, until the signal aborts. */
  async append(fact: CampaignFact, signal: AbortSignal): Promise<Logged> {
    if (this.#busy) throw new Error(`campaign ${this.campaign}: two appends at once; appends go through one mailbox`);
    this.#busy = true;
    try {
      const logged = await this.#store(eventAfter(this.campaign, this.#tail, fact, this.#now()), signal);
      this.#tail = logged;
      this.#bus.nc.publish(subjects.live(this.campaign), logged.bytes);
      return logged;
    } finally {
      this.#busy = false;
    }
  }

  async #store(next: { event: CampaignEvent; bytes: Uint8Array }, signal: AbortSignal): Promise<Logged> {
    const subject = subjects.event(this.campaign);
    const backoff = new Backoff(50, 2_000);
    for (;;) {
      signal.throwIfAborted();
      const from = performance.now();
      try {
        const ack = await this.#bus.js.publish(subject, next.bytes, {
          timeout: ACK_TIMEOUT_MS,
          expect: { streamName: STREAMS.events, lastSubjectSequence: this.#tail?.streamSeq ?? 0 },
        });
        this.#bus.store?.stored(performance.now() - from);
        return { ...next, streamSeq: ack.seq };
      } catch (error) {
        const verdict = storeVerdict(error);
        if (verdict === "refused") throw error;
        if (verdict === "moved") {
          const last = await lastStored(this.#bus.jsm, STREAMS.events, subject);
          if (last !== "unknown") {
            if (!last || Buffer.compare(last.data, next.bytes) !== 0) throw new LogOwnershipError(this.campaign, next.event.seq);
            this.#bus.store?.stored();
            return { ...next, streamSeq: last.seq };
          }
        }
        // No answer: the broker is away, or died between storing and answering (E3: the next try finds out).
        await this.#bus.store?.stalled(error);
        await delay(backoff.nextMs(), signal);
      }
    }
  }
}
