import { CodecError, type CampaignFact, type Job, type JobResult, type Verdict } from "@vibeserve/shared";
import type { JobStanding } from "../fleet/lease-table.ts";
import type { Logged } from "../log/chain.ts";
import { CampaignLog, LogOwnershipError, type LogBus } from "../log/event-log.ts";
import { Backoff, delay } from "../process/backoff.ts";
import { fold, pending, type Campaign } from "./campaign.machine.ts";
import { expiring, overReason, settling, type Blameless } from "./counting.ts";
import type { Effect } from "./effect.ts";
import { Evidence } from "./evidence.ts";
import { EffectBlocked, EffectSuspended, runEffect, type EffectContext, type EffectHandlers } from "./effect-handlers.ts";
import type { JobEntry } from "./ledger.ts";

/**
 * The shell around one campaign's machine: replays its log, appends what becomes true, runs what is pending.
 *   S1. Everything is appended through one mailbox, so the state a fact was decided on is the state it is appended to.
 *   S2. An effect runs once an id while this process lives; what is still pending after a restart runs again, and is idempotent.
 *   S3. A job's answer is appended before whoever delivered it is told so; the same answer is never appended twice.
 *   S4. A paused campaign starts nothing; answers to what runs already are still taken.
 */
export interface ActorDeps {
  bus: LogBus;
  handlers: EffectHandlers;
  /** Attempts of this job are over: whoever works on it may stop. */
  jobOver: (jobId: string, reason: string) => void;
  /** A fact is in a campaign's log, and the campaign is as it says. */
  recorded: (campaign: string, fact: CampaignFact, state: Campaign) => void;
  /** Why nothing can be stored at the moment; null: it can. */
  trouble: () => string | null;
  log: (event: string, facts: Record<string, unknown>) => void;
  now: () => number;
}

/** An effect that failed this often in a row (after ~8 s with the delays below) won't mend itself: the campaign is paused with the reason. */
const EFFECT_TRIES = 5;

export class CampaignActor {
  readonly id: string;
  readonly #deps: ActorDeps;
  readonly #log: CampaignLog;
  readonly #events: Logged[];
  readonly #jobs = new Map<string, Job>();
  readonly #settled = new Set<string>();
  readonly #evidence = new Evidence();
  readonly #started = new Set<string>();
  readonly #running = new Set<Promise<void>>();
  readonly #waits = new Map<string, string>();
  readonly #stop = new AbortController();
  /** The campaign has ended: what its effects still wait for is of no use to anyone. */
  readonly #gone = new AbortController();
  readonly #signal = AbortSignal.any([this.#stop.signal, this.#gone.signal]);
  readonly #ended = Promise.withResolvers<undefined>();
  #state: Campaign;
  #mailbox: Promise<void> = Promise.resolve();
  #fault: string | null = null;

  private constructor(deps: ActorDeps, log: CampaignLog, events: Logged[], state: Campaign) {
    this.id = log.campaign;
    this.#deps = deps;
    this.#log = log;
    this.#events = events;
    this.#state = state;
    for (const { event } of events) this.#index(event.fact);
    if (state.ended) this.#ended.resolve(undefined);
  }

  /** Appends campaign.created. `start` begins the work. */
  static async create(deps: ActorDeps, id: string, fact: Extract<CampaignFact, { type: "campaign.created" }>): Promise<CampaignActor> {
    const { log, events } = await CampaignLog.open(deps.bus, id, deps.now);
    if (events.length > 0) throw new Error(`campaign ${id} exists`);
    const created = await log.append(fact, AbortSignal.timeout(10_000));
    return new CampaignActor(deps, log, [created], fold(null, created.event));
  }

  /** Replays a campaign. Throws ChainBrokenError when its log was altered. */
  static async open(deps: ActorDeps, id: string): Promise<CampaignActor> {
    const { log, events } = await CampaignLog.open(deps.bus, id, deps.now);
    let state: Campaign | null = null;
    for (const { event } of events) state = fold(state, event);
    if (!state) throw new Error(`campaign ${id} has no events`);
    return new CampaignActor(deps, log, events, state);
  }

  get state(): Campaign {
    return this.#state;
  }

  get events(): readonly Logged[] {
    return this.#events;
  }

  /** Digest of what this campaign may draw on, fixed when it was created. */
  get stackDigest(): string {
    const created = this.#events[0]?.event.fact;
    return created?.type === "campaign.created" ? created.stackDigest : "";
  }

  /** What running effects wait for, and what stopped this actor, if anything did. */
  get waits(): readonly string[] {
    const stopped = this.#fault ?? this.#deps.trouble();
    return stopped === null ? [...this.#waits.values()] : [stopped];
  }

  /** Resolves when campaign.ended is in the log. */
  get ended(): Promise<undefined> {
    return this.#ended.promise;
  }

  /** Resolves when all that was to be appended by now is. */
  get idle(): Promise<void> {
    return this.#mailbox;
  }

  start(): void {
    this.#runPending();
  }

  /** False: it was not running. */
  async pause(reason: string): Promise<boolean> {
    return this.#append((s) => (s.pausedAt || s.ended ? null : { type: "campaign.paused", reason }));
  }

  /** False: it was not paused. */
  async resume(reason: string): Promise<boolean> {
    return this.#append((s) => (s.pausedAt && !s.ended ? { type: "campaign.resumed", reason } : null));
  }

  /** For people; ranks nothing. False: it had ended. */
  async note(topic: string, text: string): Promise<boolean> {
    return this.#append((s) => (s.ended ? null : { type: "note.recorded", topic, text }));
  }

  /** The device came under suspicion: what it answered since then is marked, and measured again where nothing was decided on it. False: it answered nothing. */
  async suspect(deviceId: string, since: number | null, why: string): Promise<boolean> {
    return this.#append((s) => {
      const jobs = Object.values(s.ledger).filter((e) => e.status === "over" && e.devices.includes(deviceId) && e.endedAt > (since ?? 0));
      if (s.ended || jobs.length === 0) return null;
      return { type: "results.suspected", deviceId, since, jobs: jobs.map((e) => e.id), why: why.slice(0, 500) };
    });
  }

  /** False: it had ended. */
  async cancel(reason: string): Promise<boolean> {
    return this.#append((s) => (s.ended ? null : { type: "campaign.ended", outcome: "cancelled", reason }));
  }

  /** How an attempt stands, for the lease granter; null: not a job of this campaign. */
  standing(jobId: string, attempt: number): JobStanding | null {
    const job = this.#jobs.get(jobId);
    if (!job) return null;
    const over = overReason(this.#state, jobId, attempt);
    if (over !== null) return { kind: "over", reason: over };
    if (this.#state.pausedAt) return { kind: "held", reason: `campaign ${this.id} is paused` };
    return { kind: "open" };
  }

  /**
   * Takes a job's answer whose signature and schema are good. stale: why its lease does not count, null if it is current. Returns once it is in
   * the log: true if it changed the campaign. judge: what it counts as, where that is not what its agent said.
   */
  async settle(result: JobResult, stale: string | null, judge?: (entry: JobEntry) => Verdict | null): Promise<boolean> {
    let accepted = false;
    await this.#append((state) => {
      const fact = settling(state, this.#settled, result, stale, judge);
      accepted = fact?.accepted ?? false;
      return fact === null || accepted || this.#evidence.hasRoom(result) ? fact : this.#evidence.drop(result);
    });
    return accepted;
  }

  /** Counts a result of this agent that would change nothing. */
  async drop(result: JobResult): Promise<void> {
    await this.#append(() => this.#evidence.drop(result));
  }

  /** The attempt is over without an answer. */
  async expire(jobId: string, attempt: number, why: string, attribution?: Blameless): Promise<boolean> {
    return this.#append((state) => expiring(state, jobId, attempt, why, attribution));
  }

  /** Stops running and writing; what was pending runs again in the next life. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#mailbox;
    await Promise.allSettled(this.#running);
  }

  #index(fact: CampaignFact): void {
    if (fact.type === "job.requested") this.#jobs.set(fact.job.id, fact.job);
    if (fact.type === "job.settled") this.#settled.add(fact.result.sig);
    this.#evidence.follow(fact);
  }

  /** S1: `decide` sees the state that its fact will be folded into. False: it decided on nothing. Rejects when this actor can't write any more. */
  async #append(decide: (state: Campaign) => CampaignFact | null): Promise<boolean> {
    const turn = this.#mailbox.then(async () => {
      if (this.#fault !== null) throw new Error(this.#fault);
      const fact = decide(this.#state);
      if (fact === null) return false;
      const before = this.#state;
      const logged = await this.#log.append(fact, this.#stop.signal);
      this.#events.push(logged);
      this.#state = fold(this.#state, logged.event);
      this.#index(fact);
      this.#deps.log(fact.type, { campaign: this.id, seq: logged.event.seq });
      this.#afterwards(fact, before);
      return true;
    });
    this.#mailbox = turn.then(
      () => undefined,
      // A fact that can't be written was not: whoever decided on it is told, and the log is as it was.
      (error: unknown) => (error instanceof CodecError ? undefined : this.#failed(error)),
    );
    return turn;
  }

  #afterwards(fact: CampaignFact, before: Campaign): void {
    this.#deps.recorded(this.id, fact, this.#state);
    if (fact.type === "campaign.ended") {
      for (const entry of Object.values(before.ledger))
        if (entry.status === "open") this.#deps.jobOver(entry.id, `campaign ${fact.outcome}`);
      this.#waits.clear();
      this.#gone.abort();
      this.#ended.resolve(undefined);
    }
    this.#runPending();
  }

  #failed(error: unknown): void {
    if (this.#stop.signal.aborted || this.#fault !== null) return;
    // The log is not ours any more, or refuses what we write: going on would build on facts that nobody else has.
    this.#fault = error instanceof Error ? error.message : String(error);
    this.#deps.log(error instanceof LogOwnershipError ? "campaign.lost" : "campaign.failed", { campaign: this.id, why: this.#fault });
    this.#stop.abort();
  }

  #runPending(): void {
    if (this.#stop.signal.aborted) return;
    for (const effect of pending(this.#state)) {
      if (this.#started.has(effect.id)) continue;
      this.#started.add(effect.id);
      const run = this.#run(effect).finally(() => this.#running.delete(run));
      this.#running.add(run);
    }
  }

  async #run(effect: Effect): Promise<void> {
    const backoff = new Backoff(500, 4_000);
    const stopped = () => this.#stop.signal.aborted;
    for (let tries = 1; ; tries++) {
      if (stopped() || this.#state.ended) return;
      try {
        const fact = await runEffect(this.#deps.handlers, effect, this.#context(effect));
        this.#waits.delete(effect.id);
        if (fact) await this.#append((s) => (s.ended ? null : fact));
        return;
      } catch (error) {
        if (stopped() || this.#gone.signal.aborted) return;
        if (error instanceof EffectSuspended) {
          // Resumed already, or when it is: then it runs afresh.
          this.#waits.delete(effect.id);
          this.#started.delete(effect.id);
          this.#runPending();
          return;
        }
        // A publish that gets no answer may be the first to meet a full disk. What fails because nothing can be stored says nothing about the effect.
        if (error instanceof Error && error.name === "TimeoutError") await this.#deps.bus.store?.stalled(error);
        if (this.#deps.trouble() !== null) tries = 0;
        const why = `${effect.id}: ${error instanceof Error ? error.message : String(error)}`;
        this.#deps.log("effect.failed", {
          campaign: this.id,
          effect: effect.id,
          tries,
          why,
          stack: error instanceof Error ? error.stack : undefined,
        });
        this.#waits.set(effect.id, `${why} (try ${tries} of ${EFFECT_TRIES})`);
        const blocked = error instanceof EffectBlocked;
        if (blocked || tries >= EFFECT_TRIES) {
          await this.#giveUp(effect, blocked ? error.message : `${why} (tried ${EFFECT_TRIES} times)`);
          return;
        }
        await delay(backoff.nextMs(), this.#stop.signal);
      }
    }
  }

  /** Paused, not ended: a person can mend what is broken and resume, and then the effect is tried afresh. */
  async #giveUp(effect: Effect, why: string): Promise<void> {
    this.#waits.delete(effect.id);
    this.#started.delete(effect.id);
    try {
      await this.pause(why);
    } catch {
      // Recorded as this actor's fault by the mailbox.
    }
  }

  #context(effect: Effect): EffectContext {
    return {
      campaign: this.#state,
      current: () => this.#state,
      stackDigest: this.stackDigest,
      signal: this.#signal,
      requested: (jobId: string, attempt: number) => {
        const job = this.#jobs.get(jobId);
        return job?.attempt === attempt ? job : null;
      },
      append: async (fact: CampaignFact) => ((await this.#append((s) => (s.ended ? null : fact))) ? this.#state : null),
      waits: (reason: string | null) => {
        if (reason === null) this.#waits.delete(effect.id);
        else this.#waits.set(effect.id, reason);
      },
    };
  }
}
