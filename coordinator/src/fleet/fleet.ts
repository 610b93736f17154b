import type { JetStreamClient, JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection, Subscription } from "@nats-io/transport-node";
import { CodecError, decode, Progress, subjects } from "@vibeserve/shared";
import type { CampaignRegistry } from "../campaign/registry.ts";
import type { AgentRegistry } from "./agent-registry.ts";
import { LeaseGranter } from "./lease-granter.ts";
import { ResultIntake } from "./result-intake.ts";

export interface FleetDeps {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
  registry: AgentRegistry;
  campaigns: CampaignRegistry;
  publicKeyOf: (agentId: string) => string | null;
  log: (event: string, facts: Record<string, unknown>) => void;
  /** Tests shorten it. */
  leaseTtlMs?: number;
}

/** Everything between the queue of jobs and the campaigns' logs: leases, progress, results, and the watch over attempts. */
export class Fleet implements AsyncDisposable {
  readonly granter: LeaseGranter;
  readonly #intake: ResultIntake;
  readonly #progress: Subscription;
  readonly #forget: () => void;

  private constructor(granter: LeaseGranter, intake: ResultIntake, progress: Subscription, forget: () => void) {
    this.granter = granter;
    this.#intake = intake;
    this.#progress = progress;
    this.#forget = forget;
  }

  /** Call it when all campaigns are replayed: before that every job would look unknown. */
  static async open(deps: FleetDeps): Promise<Fleet> {
    const { nc, js, jsm, registry, campaigns, log } = deps;
    const granter = await LeaseGranter.open({
      nc,
      js,
      jsm,
      agent: (agentId) => registry.get(agentId),
      standing: (jobId, attempt) => campaigns.standing(jobId, attempt),
      lost: (lease, why) => {
        campaigns.expire(lease.jobId, lease.attempt, why).catch((error: unknown) => {
          log("job.not-expired", { jobId: lease.jobId, why: error instanceof Error ? error.message : String(error) });
        });
      },
      log,
      ...(deps.leaseTtlMs === undefined ? {} : { ttlMs: deps.leaseTtlMs }),
    });
    const forget = registry.onChange((change) => {
      if (change.kind === "restarted" || change.kind === "joined") granter.agentRestarted(change.agent);
      if (change.kind === "withdrawn") granter.agentWithdrew(change.agent);
    });
    for (const agent of registry.list()) granter.agentRestarted(agent);
    const progress = nc.subscribe("vs.progress.>", {
      callback: (error, message) => {
        if (error) return;
        const report = readProgress(message.data, message.subject);
        if (report) granter.heard(report);
      },
    });
    const intake = await ResultIntake.open({
      js,
      publicKeyOf: deps.publicKeyOf,
      staleness: (result) => granter.staleness(result),
      settle: (result, stale) => campaigns.settle(result, stale),
      recorded: (result, accepted) => {
        const held = granter.leases().find((l) => l.lease.token === result.leaseToken && l.lease.jobId === result.jobId);
        if (held && (accepted || campaigns.standing(result.jobId, result.attempt).kind === "over")) granter.release(held.lease);
      },
      log,
    });
    return new Fleet(granter, intake, progress, forget);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#forget();
    this.#progress.unsubscribe();
    await this.#intake[Symbol.asyncDispose]();
    await this.granter[Symbol.asyncDispose]();
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
