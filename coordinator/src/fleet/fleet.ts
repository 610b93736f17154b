import type { JetStreamClient, JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection, Subscription } from "@nats-io/transport-node";
import { CodecError, decode, Progress, subjects, type CampaignFact } from "@vibeserve/shared";
import type { CampaignRegistry } from "../campaign/registry.ts";
import { Scheduler } from "../schedule/scheduler.ts";
import type { AgentRegistry } from "./agent-registry.ts";
import { Dispatcher } from "./dispatcher.ts";
import { Leases } from "./leases.ts";
import { ResultIntake } from "./result-intake.ts";

export interface FleetDeps {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
  registry: AgentRegistry;
  campaigns: Pick<CampaignRegistry, "standing" | "expire" | "settle">;
  publicKeyOf: (agentId: string) => string | null;
  log: (event: string, facts: Record<string, unknown>) => void;
  /** Tests shorten it. */
  leaseTtlMs?: number;
}

/** Everything between the campaigns' logs and the agents: scheduler, leases, progress, results. */
export class Fleet implements AsyncDisposable {
  readonly leases: Leases;
  readonly scheduler: Scheduler;
  readonly dispatcher: Dispatcher;
  readonly #intake: ResultIntake;
  readonly #progress: Subscription;

  private constructor(leases: Leases, scheduler: Scheduler, dispatcher: Dispatcher, intake: ResultIntake, progress: Subscription) {
    this.leases = leases;
    this.scheduler = scheduler;
    this.dispatcher = dispatcher;
    this.#intake = intake;
    this.#progress = progress;
  }

  /** The campaigns' logs may still be unread; `replayed` must hear of each that is. */
  static async open(deps: FleetDeps): Promise<Fleet> {
    const { nc, js, jsm, registry, campaigns, log } = deps;
    const standing = campaigns.standing.bind(campaigns);
    const parts: { dispatcher: Dispatcher | null } = { dispatcher: null };
    const leases = await Leases.open({
      ...{ nc, js, jsm, standing, log },
      lost: ({ job }, why) => {
        campaigns.expire(job, why).catch((error: unknown) => {
          log("job.not-expired", { jobId: job.id, why: error instanceof Error ? error.message : String(error) });
        });
      },
      ended: (lease, how) => parts.dispatcher?.ended(lease, how),
      ...(deps.leaseTtlMs === undefined ? {} : { ttlMs: deps.leaseTtlMs }),
    });
    const scheduler = new Scheduler();
    const dispatcher = new Dispatcher({ scheduler, registry, standing, log, now: () => Date.now() }, leases);
    parts.dispatcher = dispatcher;
    const progress = nc.subscribe(subjects.progress("*", "*"), {
      callback: (error, message) => {
        if (error) return;
        const report = readProgress(message.data, message.subject);
        if (report) leases.heard(report);
      },
    });
    const intake = await ResultIntake.open({
      js,
      publicKeyOf: deps.publicKeyOf,
      staleness: (result) => leases.staleness(result),
      settle: (result, stale) => campaigns.settle(result, stale),
      recorded: ({ jobId, campaign, attempt, leaseToken, startedAt, endedAt }, accepted) => {
        const held = leases.of(jobId);
        if (held?.lease.token !== leaseToken) return;
        if (accepted) dispatcher.worked(held.job, endedAt - startedAt);
        if (accepted || standing({ campaign, id: jobId, attempt }).kind === "over") leases.release(jobId);
      },
      log,
    });
    return new Fleet(leases, scheduler, dispatcher, intake, progress);
  }

  /** What a campaign's new fact means for its jobs that wait. */
  follow(campaign: string, fact: CampaignFact): void {
    if (fact.type === "campaign.paused") this.dispatcher.hold(campaign);
    if (fact.type === "campaign.resumed") this.dispatcher.resume(campaign);
    if (fact.type === "campaign.ended") this.dispatcher.forget(campaign);
  }

  /** This campaign's log is read. */
  replayed(campaign: string): void {
    this.leases.replayed(campaign);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#progress.unsubscribe();
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
