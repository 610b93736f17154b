import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import type { CampaignFact, CampaignOptions, Target } from "@vibeserve/shared";
import { models as modelsOf } from "./agents/models.ts";
import { ApiServer } from "./api/server.ts";
import { apiVerbs } from "./api/verbs.ts";
import { ArtifactIntake } from "./artifact/artifact-intake.ts";
import { ArtifactStore } from "./artifact/artifact-store.ts";
import { pruneArtifacts } from "./artifact/prune.ts";
import { UnnamedChunks } from "./artifact/unnamed-chunks.ts";
import { credentialOf, type BrokerAccess } from "./broker/access.ts";
import { openBroker } from "./broker/open-broker.ts";
import type { AgentPrincipal } from "./broker/principals.ts";
import { requireRoom, StoreGuard } from "./broker/store-guard.ts";
import { connectBus } from "./bus/connect.ts";
import { ensureStreams } from "./bus/streams.ts";
import type { CampaignActor } from "./campaign/campaign.actor.ts";
import type { Campaign } from "./campaign/campaign.machine.ts";
import { fellApart, observations } from "./campaign/planning.ts";
import { committedUsd } from "./campaign/turns.ts";
import type { EffectContext, EffectHandlers } from "./campaign/effect-handlers.ts";
import { CampaignRegistry } from "./campaign/registry.ts";
import { searchHandlers } from "./campaign/search-handlers.ts";
import { writeChampion } from "./checkpoint/champion-file.ts";
import { CampaignRepository } from "./checkpoint/repository.ts";
import type { Settings } from "./config.ts";
import { agentRows } from "./enrolment/agent-rows.ts";
import { Enrolment } from "./enrolment/enrolment.ts";
import { championOf } from "./findings/champions.ts";
import { elsewhere, isHome } from "./findings/elsewhere.ts";
import { AgentRegistry } from "./fleet/agent-registry.ts";
import { Fleet } from "./fleet/fleet.ts";
import { FleetHolds } from "./fleet/holds.ts";
import type { Observer } from "./observe/observer.ts";
import { thisRelease } from "./operate/release-file.ts";
import type { EventLogger } from "./process/log-file.ts";
import { remembered } from "./process/remembered.ts";
import { Requalifier } from "./release/requalifier.ts";
import { Reports } from "./report/reports.ts";
import type { Catalog } from "./stack/catalog.ts";
import { catalogLoader } from "./stack/catalog-loader.ts";

export interface CoordinatorOptions {
  settings: Settings;
  version: string;
  log: EventLogger;
  /** Ends the wait for a cluster's servers at the start; once begun, a coordinator is ended by its disposal. */
  signal?: AbortSignal;
  /** Probes and metrics; absent: nobody asks for them. */
  observer?: Observer | null;
  /** Tests shorten it. */
  leaseTtlMs?: number;
  /** Pauses while a provider of models is out of reach; tests shorten them. */
  pausesMs?: readonly number[];
  /** A simulation lets an agent's turns take their time. */
  handlers?: (product: EffectHandlers) => EffectHandlers;
  /** Free space below which the disk counts as full; tests use small disks. */
  minFreeBytes?: number;
}

/** A status is one message of 256 KiB, and an agent with eight devices has up to 4 KiB. */
const AGENTS_SHOWN = 12;

type Submit = (target: Target, options: CampaignOptions) => Promise<CampaignActor>;

/**
 * Everything of one coordinator, in the order in which the parts need each other: broker, bus, agents, campaigns found, leases, then verbs answered while the
 * campaigns' logs are read, each of which goes on as soon as it is. Closing goes the other way round and leaves nothing undone that a restart would not do again.
 */
export class Coordinator implements AsyncDisposable {
  readonly broker: BrokerAccess;
  readonly campaigns: CampaignRegistry;
  /** Begins a campaign. Throws ApiProblem bad-input where the target's seed is not installed. */
  readonly submit: Submit;
  readonly #parts: AsyncDisposable[];
  readonly #nc: NatsConnection;
  readonly #enrolment: Enrolment;

  private constructor(
    broker: BrokerAccess,
    campaigns: CampaignRegistry,
    nc: NatsConnection,
    enrolment: Enrolment,
    submit: Submit,
    parts: AsyncDisposable[],
  ) {
    this.broker = broker;
    this.campaigns = campaigns;
    this.#nc = nc;
    this.#enrolment = enrolment;
    this.submit = submit;
    this.#parts = parts;
  }

  static async start(options: CoordinatorOptions): Promise<Coordinator> {
    const { settings, observer } = options;
    const log: EventLogger = observer
      ? (event, facts) => {
          observer.logged(event, facts);
          options.log(event, facts);
        }
      : options.log;
    const now = () => Date.now();
    const startedAt = now();
    mkdirSync(settings.data, { recursive: true, mode: 0o700 });
    requireRoom(settings.data, options.minFreeBytes);
    const broker = await openBroker(settings, log, options.signal);
    const nc = await connectBus(credentialOf(broker, "coordinator"));
    const door = await connectBus(credentialOf(broker, "coordinator"));
    const [js, jsm] = [jetstream(nc), await jetstreamManager(nc, { checkAPI: false })];
    const store = new StoreGuard({
      dir: settings.data,
      restart: () => broker.restart(),
      log,
      ...(observer ? { stored: (tookMs: number) => observer.stored(tookMs) } : {}),
      ...(options.minFreeBytes === undefined ? {} : { minFreeBytes: options.minFreeBytes }),
    });
    const bus = { nc, js, jsm, store };
    await ensureStreams(jsm, broker.replicas);
    const artifacts = await ArtifactStore.open(nc);
    const artifactIntake = new ArtifactIntake(bus, log);
    const unnamedChunks = new UnnamedChunks({ nc, jsm, log, inTurn: (agentId, task) => artifactIntake.inTurn(agentId, task) });
    observer?.connected(nc);
    const enrolled = byId(() => broker.agents);
    const registry = await AgentRegistry.open({ nc, js, enrolled, log });
    const enrolment = Enrolment.load({
      nc: door,
      broker,
      putOut: async (agentId, reason) => {
        fleet?.leases.agentRevoked(agentId, reason);
        await registry.remove(agentId);
      },
      checkAccount: settings.kubernetes ? (await import("./enrolment/service-account.ts")).serviceAccountCheck(settings.kubernetes) : null,
      log,
    });

    const catalogs = catalogLoader(settings.root);
    const repository = repositoryOpener(settings, (bytes) => artifacts.put(bytes));
    let fleet: Fleet | null = null;
    const models = modelsOf({
      settings,
      now,
      put: (bytes) => artifacts.put(bytes),
      committedUsd: () => campaigns.list().reduce((sum, { state }) => sum + committedUsd(state.turns), 0),
      onError: (error) => log("agent.failed", { why: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
      pausesMs: options.pausesMs,
    });
    const handlers = whenAllRead(
      () => campaigns.all,
      searchHandlers({
        offer: (job, claim, avoid) => fleet?.dispatcher.offer(job, claim, avoid),
        registry,
        catalog: (seed, digest) => catalogs.unchanged(seed, digest),
        repository,
        findings: (c, catalog) => findings(campaigns.list(), c, catalog),
        elsewhere: (c, catalog) => elsewhere(campaigns.list(), c, catalog, now()),
        crowned: (of) => championOf(campaigns.list().find(({ id }) => id === of.campaign)?.state, of.experimentId),
        lessons: (c) => lessons(campaigns.list(), c),
        artifact: (digest) => artifacts.get(digest),
        models,
        champion: (champion) => writeChampion(join(settings.data, "git"), champion),
        now,
      }),
    );
    const campaigns = await CampaignRegistry.open({
      bus,
      handlers: options.handlers?.(handlers) ?? handlers,
      trouble: () => store.trouble,
      jobOver: (jobId, reason) => fleet?.dispatcher.over(jobId, reason),
      recorded: (campaign, fact, state) => {
        fleet?.follow(campaign, fact);
        observer?.recorded(fact, state);
      },
      replayed: (actor) => {
        fleet?.replayed(actor.id);
        follow(actor);
      },
      log,
      now,
    });
    const reports = new Reports(settings.data, log);
    const requalifier = new Requalifier({
      ...{ data: settings.data, mode: settings.requalify, agents: () => registry.list(), log },
      campaigns: () => campaigns.list().map((actor) => actor.state),
      submit: (target, chosen) => submit(target, chosen),
    });
    const follow = (actor: CampaignActor) => {
      if (!actor.state.ended) reports.follow(actor);
      void Promise.all([actor.ended, campaigns.all]).then(
        () => requalifier.ended(actor.state),
        () => undefined,
      );
    };
    fleet = await Fleet.open({
      ...bus,
      registry,
      campaigns,
      // What an agent signed before it was revoked is still its own: evidence.
      ...(settings.canary === "auto"
        ? { canariesFrom: () => (campaigns.unread > 0 ? [] : campaigns.list().map((actor) => actor.state)) }
        : {}),
      suspected: (deviceId, since, why) => {
        const tell = async () => {
          await campaigns.all;
          await Promise.all(campaigns.list().map(async (actor) => actor.suspect(deviceId, since, why)));
        };
        tell().catch((error: unknown) => log("suspicion.not-recorded", { deviceId, why: String(error) }));
      },
      healthFile: join(settings.data, "health.json"),
      publicKeyOf: (agentId) => enrolled(agentId)?.publicKey ?? enrolment.revoked.find((r) => r.agentId === agentId)?.publicKey ?? null,
      log,
      ...(options.leaseTtlMs === undefined ? {} : { leaseTtlMs: options.leaseTtlMs }),
    });
    const { leases, dispatcher, scheduler, health } = fleet;
    const holds = new FleetHolds({
      file: join(settings.data, "holds.json"),
      hold: (where, until, reason) => dispatcher.keepFree(where, until, reason),
      now,
    });
    await enrolment.start();
    campaigns.start(new Set(leases.list().map(({ job }) => job.campaign)));
    const submit = async (target: Target, chosen: CampaignOptions) => {
      await models.admit(target);
      const digest = await catalogs.digest(target.seed);
      const actor = await campaigns.submit(target, chosen, digest);
      follow(actor);
      const warning = models.warning(target);
      if (warning !== null) await actor.note("budget", warning);
      return actor;
    };
    const pods =
      settings.workerPods &&
      (await import("./pods/open.ts")).openWorkerPods(settings.workerPods, {
        registry,
        demand: (pool) => scheduler.demand(pool),
        campaigns: () => (campaigns.unread > 0 ? null : campaigns.list().map((actor) => actor.state)),
        gone: async (agentId) => enrolment.forget(agentId),
        log,
        now,
      });
    void campaigns.all.then(
      () => {
        registry.onChange(() => requalifier.look());
        requalifier.look();
      },
      // Stopped before all logs were read.
      () => undefined,
    );
    const api = new ApiServer(
      nc,
      apiVerbs({
        campaigns,
        submit,
        artifacts,
        leases: () => leases.list(),
        repository,
        enrolment,
        agents: (after, limit) => {
          const known = { enrolled: broker.agents, waiting: enrolment.waiting, revoked: enrolment.revoked };
          return agentRows(
            {
              ...known,
              info: (id) => registry.get(id),
              heardAt: (id) => registry.heardAt(id),
              health: (id) => health.known(id),
              incompatible: (id) => registry.incompatible(id),
              twice: (id) => registry.twice(id),
            },
            after,
            limit,
          );
        },
        broker: async (agentId) => ({ servers: servers(broker), ca: broker.ca, claim: await broker.claimOf(agentId) }),
        prune: (request) => pruneArtifacts({ nc, jsm, now, ...request }),
        status: () => ({
          pid: process.pid,
          startedAt,
          ...thisRelease(options.version),
          broker: { pid: broker.pid ?? 0, ...broker.settings },
          agents: registry.list().slice(0, AGENTS_SHOWN),
          registered: registry.list().length,
        }),
        fleet: { scheduler, holds, health, agents: () => registry.list(), enrolled: () => broker.agents },
        now,
      }),
      log,
    );
    // Whoever is told that it is ready may ask at once: by then the broker knows who answers.
    await nc.flush();
    observer?.watch({
      ...{ nc, jsm, store, registry, campaigns, fleet, scheduler },
      ...{ version: options.version, data: settings.data, usd: settings.usd, canaries: settings.canary === "auto" },
      enrolled: () => broker.agents,
      waiting: () => enrolment.waiting.length,
      brokerVersion: () => broker.settings.version,
    });
    return new Coordinator(broker, campaigns, nc, enrolment, submit, [
      api,
      ...(pods ? [pods] : []),
      holds,
      enrolment,
      reports,
      models,
      fleet,
      registry,
      artifactIntake,
      unnamedChunks,
      { [Symbol.asyncDispose]: async () => door.close() },
    ]);
  }

  /** Gives an agent its user on the broker. False: the id belongs to another key. */
  async enroll(agent: AgentPrincipal): Promise<boolean> {
    return this.#enrolment.enroll(agent);
  }

  /** How clients find it: from this machine, then from others. */
  get servers(): string[] {
    return servers(this.broker);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const [api, ...rest] = this.#parts;
    this.campaigns.stop();
    await api?.[Symbol.asyncDispose]();
    await this.campaigns.close();
    for (const part of rest) await part[Symbol.asyncDispose]();
    await this.#nc.close();
    await this.broker.close();
  }
}

const servers = ({ url, publicUrl, ca }: BrokerAccess): string[] => [
  ...new Set([url, ...(ca === undefined ? [] : [publicUrl])].flatMap((list) => list.split(","))),
];

/** The agents' list is replaced when it changes; looked through for each result and each entry, 10,000 would take a second. */
function byId(list: () => readonly AgentPrincipal[]): (agentId: string) => AgentPrincipal | null {
  let of: readonly AgentPrincipal[] = [];
  let known = new Map<string, AgentPrincipal>();
  return (agentId) => {
    if (of !== list()) {
      of = list();
      known = new Map(of.map((agent) => [agent.agentId, agent]));
    }
    return known.get(agentId) ?? null;
  };
}

const repositoryOpener = (settings: Settings, putArtifact: (bytes: Uint8Array) => Promise<{ digest: string; bytes: number }>) =>
  remembered((campaign) => CampaignRepository.open({ dir: join(settings.data, "git"), path: settings.path, putArtifact }, campaign));

/**
 * What ended campaigns on the same stack and ISA measured: real for real, simulated for simulated (I10). Where what they proved was once put together and
 * fell apart, nothing counts as proved, so that each skill is tried by itself again.
 */
function findings(actors: readonly CampaignActor[], c: Campaign, catalog: Catalog) {
  const before = actors
    .filter((actor) => actor.id !== c.id && actor.state.ended !== null && isHome(actor, c, catalog.digest))
    .map((actor) => actor.state);
  const together = !before.some(fellApart);
  return before.flatMap((s) => observations(s, catalog)).map((o) => ({ ...o, proved: o.proved && together }));
}

/** Ideas of models that ended campaigns on the same ISA proved, or gave up with a mechanism that a judge found sound; newest last. */
function lessons(actors: readonly CampaignActor[], c: Campaign): string[] {
  const before = actors
    .map((actor) => actor.state)
    .filter((s) => s.id !== c.id && s.ended !== null && s.device?.isa === c.device?.isa && s.device?.simulated === c.device?.simulated);
  return before
    .sort((a, b) => a.createdAt - b.createdAt)
    .flatMap((s) =>
      s.experiments
        .filter((x) => x.implemented && (x.settled?.outcome === "proven" || x.settled?.strategy === "abandoned"))
        .map((x) => {
          const what = x.settled?.strategy === "abandoned" ? "abandoned" : "proven";
          return `${what} for ${s.target.name} on ${s.target.model.name}: ${x.hypothesis.claim} (${x.hypothesis.mechanism}): ${x.settled?.reason ?? ""}`;
        }),
    );
}

/** What looks at other campaigns, or spends money of which all have their share, waits until all logs are read (C2 of the registry). */
function whenAllRead(all: () => Promise<void>, handlers: EffectHandlers): EffectHandlers {
  const after =
    <E>(handle: (effect: E, context: EffectContext) => Promise<CampaignFact | null>) =>
    async (effect: E, context: EffectContext) => {
      context.waits("waits until the logs of all campaigns are read");
      await all();
      context.waits(null);
      return handle(effect, context);
    };
  const { plan, turn, prepare, conclude } = handlers;
  return { ...handlers, plan: after(plan), turn: after(turn), prepare: after(prepare), conclude: after(conclude) };
}
