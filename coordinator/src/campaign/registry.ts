import { setImmediate } from "node:timers/promises";
import { JetStreamError } from "@nats-io/jetstream";
import { ConnectionError, RequestError, TimeoutError } from "@nats-io/transport-node";
import { digestOf, type CampaignOptions, type JobResult, type Target, type Verdict } from "@vibeserve/shared";
import type { JobStanding } from "../fleet/lease-table.ts";
import { listCampaigns, readEnded } from "../log/event-log.ts";
import { Backoff, delay } from "../process/backoff.ts";
import { CampaignActor, type ActorDeps } from "./campaign.actor.ts";
import type { Blameless } from "./counting.ts";
import type { JobEntry } from "./ledger.ts";

export interface RegistryDeps extends ActorDeps {
  /** Its log is read; nothing of it has started yet. */
  replayed: (actor: CampaignActor) => void;
}

/** A campaign whose log is still to be read. */
interface Unread {
  /** As its last event says. */
  ended: boolean;
  reading: Promise<void> | null;
  read: PromiseWithResolvers<undefined>;
}

/** Logs that are read side by side: while one is decoded the broker sends the next. */
const READERS = 3;

/**
 * All campaigns of this coordinator. Each is an actor of its own; they meet only at the devices, where the scheduler shares
 * out what they ask for.
 *   C1. After a start their logs are read one by one, those that hold leases first, those that have ended last. Each goes on as soon as its log is read.
 *   C2. Nobody is answered from a part as if it were all: what needs every campaign waits for `all`, what needs one for `known`.
 *   C3. A job of a campaign that is not read yet is never taken for over, unless that campaign has ended.
 */
export class CampaignRegistry {
  readonly #deps: RegistryDeps;
  readonly #actors = new Map<string, CampaignActor>();
  readonly #unread = new Map<string, Unread>();
  readonly #all = Promise.withResolvers<undefined>();
  readonly #started = Promise.withResolvers<undefined>();
  #stopped = false;
  /** Ids of campaigns whose first event is being stored. */
  readonly #beginning = new Set<string>();
  /** Campaigns whose log can't be trusted or read: listed, never run. */
  readonly #broken = new Map<string, string>();

  private constructor(deps: RegistryDeps) {
    this.#deps = deps;
    // Whoever waits for it is told; nobody may.
    this.#all.promise.catch(() => undefined);
  }

  /** Finds every campaign; none is read before `start`, so that the fleet can be opened in between. */
  static async open(deps: RegistryDeps): Promise<CampaignRegistry> {
    const registry = new CampaignRegistry(deps);
    const ids = await listCampaigns(deps.bus);
    const ended = await readEnded(deps.bus, ids);
    for (const id of ids) registry.#unread.set(id, { ended: ended.has(id), reading: null, read: Promise.withResolvers() });
    return registry;
  }

  /** Begins to read: those named first, then what has not ended (C1). */
  start(first: ReadonlySet<string>): void {
    const rank = (id: string) => (first.has(id) ? 0 : this.#unread.get(id)?.ended ? 2 : 1);
    const order = [...this.#unread.keys()].sort((a, b) => rank(a) - rank(b));
    const from = this.#deps.now();
    this.#started.resolve(undefined);
    const read = async () => {
      for (let id = order.shift(); id !== undefined && !this.#stopped; id = order.shift()) await this.#read(id);
    };
    void Promise.all(Array.from({ length: READERS }, read)).then(() => {
      if (this.#stopped) return;
      this.#all.resolve(undefined);
      this.#deps.log("campaigns.replayed", { campaigns: this.#actors.size, broken: this.#broken.size, ms: this.#deps.now() - from });
    });
  }

  /** Resolves when every log is read; rejects when this coordinator stops before. */
  get all(): Promise<void> {
    return this.#all.promise;
  }

  /** How many logs are still to be read. */
  get unread(): number {
    return this.#unread.size;
  }

  /** Newest first. Throws before `all` (C2). */
  list(): CampaignActor[] {
    if (this.#unread.size > 0) throw new Error(`${this.#unread.size} campaigns are not read yet`);
    return [...this.#actors.values()].sort((a, b) => b.state.createdAt - a.state.createdAt);
  }

  get broken(): ReadonlyMap<string, string> {
    return this.#broken;
  }

  /** By id, once its log is read, which then is the next to be; id null: the newest of all. */
  async find(id: string | null): Promise<CampaignActor | null> {
    if (id !== null) return this.#known(id);
    await this.all;
    return this.list()[0] ?? null;
  }

  async submit(target: Target, options: CampaignOptions, stackDigest: string): Promise<CampaignActor> {
    const id = this.#newId(target.name);
    this.#beginning.add(id);
    try {
      const actor = await CampaignActor.create(this.#deps, id, {
        type: "campaign.created",
        target,
        workloadDigest: digestOf(target.workload),
        stackDigest,
        options,
      });
      this.#actors.set(id, actor);
      actor.start();
      return actor;
    } finally {
      this.#beginning.delete(id);
    }
  }

  standing({ campaign, id, attempt }: { campaign: string; id: string; attempt: number }): JobStanding {
    const unread = this.#unread.get(campaign);
    if (unread?.ended) return { kind: "over", reason: `campaign ${campaign} has ended` };
    if (unread) return { kind: "unread" };
    const standing = this.#actors.get(campaign)?.standing(id, attempt);
    return standing ?? { kind: "over", reason: `no campaign here has asked for job ${id}` };
  }

  /** Null: no such campaign. */
  async settle(result: JobResult, stale: string | null, judge?: (entry: JobEntry) => Verdict | null): Promise<boolean | null> {
    const actor = await this.#known(result.campaign);
    return actor ? actor.settle(result, stale, judge) : null;
  }

  /** A result of one of too many that would change nothing is thrown away, and counted. */
  async drop(result: JobResult): Promise<void> {
    await (await this.#known(result.campaign))?.drop(result);
  }

  async expire({ campaign, id, attempt }: { campaign: string; id: string; attempt: number }, why: string, as?: Blameless): Promise<void> {
    await this.#unread.get(campaign)?.read.promise;
    await this.#actors.get(campaign)?.expire(id, attempt, why, as);
  }

  /** No further log is read; whoever waits for them is told. */
  stop(): void {
    this.#stopped = true;
    this.#all.reject(new Error("the coordinator stops"));
  }

  async close(): Promise<void> {
    this.stop();
    await Promise.all([...this.#unread.values()].map(async ({ reading }) => reading));
    await Promise.all([...this.#actors.values()].map((actor) => actor.close()));
  }

  async #known(id: string): Promise<CampaignActor | null> {
    if (this.#unread.has(id)) {
      await this.#started.promise;
      await this.#read(id);
    }
    return this.#actors.get(id) ?? null;
  }

  async #read(id: string): Promise<void> {
    const unread = this.#unread.get(id);
    if (unread) await (unread.reading ??= this.#replay(id));
  }

  async #replay(id: string): Promise<void> {
    const opened = await this.#open(id);
    if (opened === null) return;
    this.#unread.get(id)?.read.resolve(undefined);
    this.#unread.delete(id);
    if (opened instanceof Error) {
      this.#broken.set(id, opened.message);
      this.#deps.log("campaign.unreadable", { campaign: id, why: opened.message });
      return;
    }
    this.#actors.set(id, opened);
    this.#deps.replayed(opened);
    if (!this.#stopped) void this.#begin(opened);
  }

  /** An error: the log can't be trusted or read. A broker that is away, or slow, is waited for; null: this coordinator stops before. */
  async #open(id: string): Promise<CampaignActor | Error | null> {
    for (const backoff = new Backoff(200, 5_000); ;) {
      try {
        return await CampaignActor.open(this.#deps, id);
      } catch (error) {
        if (!(
          error instanceof TimeoutError ||
          error instanceof ConnectionError ||
          error instanceof RequestError ||
          error instanceof JetStreamError
        ))
          return error instanceof Error ? error : new Error(String(error));
        if (this.#stopped) return null;
        this.#deps.log("campaign.read-again", { campaign: id, why: error.message });
        await delay(backoff.nextMs());
      }
    }
  }

  /** What waited for this campaign (attempts that are over, results) is appended before it decides what is next. */
  async #begin(actor: CampaignActor): Promise<void> {
    await setImmediate();
    await actor.idle;
    if (!this.#stopped) actor.start();
  }

  /** Short enough that ids of jobs, which begin with it, stay within 64 characters; the time makes it sort and be unique here. */
  #newId(name: string): string {
    for (let at = this.#deps.now(); ; at++) {
      const id = `${name.slice(0, 18)}-${at.toString(36)}`;
      if (!this.#actors.has(id) && !this.#broken.has(id) && !this.#unread.has(id) && !this.#beginning.has(id)) return id;
    }
  }
}
