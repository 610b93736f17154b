import type { JetStreamClient, JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection, Subscription } from "@nats-io/transport-node";
import { CodecError, decode, Progress, senderOf, subjects, type CampaignFact, type Job, type Verdict } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import type { CampaignRegistry } from "../campaign/registry.ts";
import type { LogBus } from "../log/event-log.ts";
import { Scheduler } from "../schedule/scheduler.ts";
import { Allowance } from "../process/allowance.ts";
import type { AgentRegistry } from "./agent-registry.ts";
import { attributionOfLoss } from "./attribution.ts";
import { Dispatcher } from "./dispatcher.ts";
import { Canaries, CANARIES } from "./canaries.ts";
import type { Claim } from "./dispatch.ts";
import { FleetHealth } from "./health.ts";
import { Leases } from "./leases.ts";
import { ResultIntake } from "./result-intake.ts";

export interface FleetDeps {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
  store?: LogBus["store"] | undefined;
  registry: AgentRegistry;
  campaigns: Pick<CampaignRegistry, "standing" | "expire" | "settle"> & Partial<Pick<CampaignRegistry, "drop">>;
  publicKeyOf: (agentId: string) => string | null;
  log: (event: string, facts: Record<string, unknown>) => void;
  /** Where the devices' records are kept; absent: nowhere. */
  healthFile?: string;
  /** A device has come under suspicion. */
  suspected?: (deviceId: string, since: number | null, why: string) => void;
  /** What canaries may be made of; absent: there are none. */
  canariesFrom?: () => readonly Campaign[];
  /** Tests shorten it. */
  leaseTtlMs?: number;
}

/** Of one agent: one every 2 s from each of its devices, and one for each phase of a job; a simulated one ends hundreds of jobs a second. */
const [REPORTS_AT_ONCE, REPORTS_PER_S] = [1_000, 200];

/** Everything between the campaigns' logs and the agents: scheduler, leases, progress, results. */
export class Fleet implements AsyncDisposable {
  readonly leases: Leases;
  readonly scheduler: Scheduler;
  readonly dispatcher: Dispatcher;
  readonly health: FleetHealth;
  readonly #canaries: Canaries | null;
  readonly #intake: ResultIntake;
  readonly #progress: Subscription;

  private constructor(
    leases: Leases,
    scheduler: Scheduler,
    dispatcher: Dispatcher,
    health: FleetHealth,
    canaries: Canaries | null,
    intake: ResultIntake,
    progress: Subscription,
  ) {
    this.leases = leases;
    this.scheduler = scheduler;
    this.dispatcher = dispatcher;
    this.health = health;
    this.#canaries = canaries;
    this.#intake = intake;
    this.#progress = progress;
  }

  /** The campaigns' logs may still be unread; `replayed` must hear of each that is. */
  static async open(deps: FleetDeps): Promise<Fleet> {
    const { nc, js, jsm, registry, campaigns, log } = deps;
    const parts: { dispatcher: Dispatcher | null; canaries: Canaries | null } = { dispatcher: null, canaries: null };
    const standing: FleetDeps["campaigns"]["standing"] = (job) =>
      job.campaign === CANARIES && parts.canaries ? parts.canaries.standing(job) : campaigns.standing(job);
    const leases = await Leases.open({
      ...{ nc, js, jsm, standing, log, store: deps.store },
      lost: ({ job, lease, heardAt }, why, by) => {
        if (by === "silence") registry.fellSilent(lease.agentId, heardAt);
        if (job.campaign === CANARIES) return parts.canaries?.expire(job.id);
        campaigns.expire(job, why, attributionOfLoss(by)).catch((error: unknown) => {
          log("job.not-expired", { jobId: job.id, why: error instanceof Error ? error.message : String(error) });
        });
      },
      ended: (lease, how) => parts.dispatcher?.ended(lease, how),
      ...(deps.leaseTtlMs === undefined ? {} : { ttlMs: deps.leaseTtlMs }),
    });
    const scheduler = new Scheduler();
    const now = () => Date.now();
    const health = new FleetHealth({
      ...{ file: deps.healthFile ?? null, agents: () => registry.list(), log, now },
      changed: (agentId) => {
        parts.dispatcher?.healthChanged(agentId);
        queueMicrotask(() => parts.canaries?.look());
      },
      ...(deps.suspected ? { suspected: deps.suspected } : {}),
    });
    const dispatcher = new Dispatcher({ scheduler, registry, standing, log, now, health: (id) => health.of(id).health }, leases);
    parts.dispatcher = dispatcher;
    const offer = (job: Job, claim: Claim, device: string) => dispatcher.offer(job, claim, [], device);
    if (deps.canariesFrom) parts.canaries = new Canaries({ health, campaigns: deps.canariesFrom, offer, now });
    const reports = new Allowance(REPORTS_AT_ONCE, REPORTS_PER_S);
    const progress = nc.subscribe(subjects.progress("*", "*"), {
      callback: (error, message) => {
        if (error || !reports.take(senderOf(message.subject))) return;
        const report = readProgress(message.data, message.subject);
        if (report) leases.heard(report);
      },
    });
    const intake = await ResultIntake.open({
      js,
      jsm,
      publicKeyOf: deps.publicKeyOf,
      staleness: (result) => leases.staleness(result),
      drop: async (result) => (result.campaign === CANARIES ? undefined : campaigns.drop?.(result)),
      settle: async (result, stale) => {
        if (result.campaign === CANARIES) return parts.canaries?.settle(result, stale) ?? null;
        const counted: { verdict: Verdict | null; doubted: string | null } = { verdict: null, doubted: null };
        const accepted = await campaigns.settle(result, stale, (entry) => {
          counted.doubted = entry.doubted;
          return (counted.verdict = health.judge(result, entry));
        });
        if (accepted === true) health.answered(result, counted.verdict, counted.doubted);
        return accepted;
      },
      recorded: ({ jobId, campaign, attempt, leaseToken, startedAt, endedAt }, accepted) => {
        const held = leases.of(jobId);
        if (held?.lease.token !== leaseToken) {
          // It was handed back while its answer was on the way, and given out again.
          if (accepted) dispatcher.over(jobId, "it was answered under an earlier lease");
          return;
        }
        if (accepted) dispatcher.worked(held.job, endedAt - startedAt);
        if (accepted || standing({ campaign, id: jobId, attempt }).kind === "over") leases.release(jobId);
      },
      log,
    });
    return new Fleet(leases, scheduler, dispatcher, health, parts.canaries, intake, progress);
  }

  /** What a campaign's new fact means for its jobs that wait. */
  follow(campaign: string, fact: CampaignFact): void {
    if (fact.type === "campaign.paused") this.dispatcher.hold(campaign);
    if (fact.type === "campaign.resumed") this.dispatcher.resume(campaign);
    if (fact.type === "campaign.ended") this.dispatcher.forget(campaign);
    if (fact.type === "evidence.dropped") this.health.floods(fact.agentId, campaign, fact.dropped);
  }

  /** This campaign's log is read. */
  replayed(campaign: string): void {
    this.leases.replayed(campaign);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#progress.unsubscribe();
    await this.#canaries?.[Symbol.asyncDispose]();
    await this.#intake[Symbol.asyncDispose]();
    await this.dispatcher[Symbol.asyncDispose]();
    await this.leases[Symbol.asyncDispose]();
  }
}

/** Null: not a report, or one under another agent's name. It is lossy by intent, so nothing is done about it. */
export function readProgress(data: Uint8Array, subject: string): Progress | null {
  try {
    const report = decode(Progress, data, subject);
    return subject === subjects.progress(report.agentId, report.jobId) ? report : null;
  } catch (error) {
    if (error instanceof CodecError) return null;
    throw error;
  }
}
