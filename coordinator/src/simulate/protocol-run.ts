import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { countOf, quantile, type Target } from "@vibeserve/shared";
import { credentialOf } from "../broker/access.ts";
import { connectBus } from "../bus/connect.ts";
import { STREAM_NAMES } from "../bus/streams.ts";
import type { CampaignActor } from "../campaign/campaign.actor.ts";
import { SEED } from "../campaign/campaign.machine.ts";
import type { EffectHandlers } from "../campaign/effect-handlers.ts";
import { planNext } from "../campaign/planning.ts";
import { aloneIn, type Settings } from "../config.ts";
import { Coordinator } from "../coordinator.ts";
import { readLog } from "../log/event-log.ts";
import { delay } from "../process/backoff.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
import { unlessAborted } from "../process/within.ts";
import type { Catalog } from "../stack/catalog.ts";
import { CoordinatorWatch } from "./coordinator-watch.ts";
import { enrolBeforehand, newMember, startCrowd, type CrowdMember } from "./crowd.ts";
import { campaignsOf, type PlannedCampaign } from "./fleet-campaigns.ts";
import { labelsOf, measures, type FleetFile } from "./fleet-file.ts";
import { writeInstallation } from "./installation.ts";
import { breaches } from "./invariants.ts";
import { planOf, type FleetPlan } from "./plan.ts";
import { recordedRun, type Played } from "./recorded-run.ts";
import { catalogOf, deviceOf, targetOf, turnMs } from "./simulated-campaign.ts";
import { targetName, type FleetModel } from "./simulated-work.ts";

export interface ProtocolOptions extends FleetModel {
  settings: Settings;
  version: string;
  signal: AbortSignal;
  say: (line: string) => void;
  /** Of a lease whose agent is silent, real ms; default: the product's. */
  leaseTtlMs?: number;
}

/** What the real path added to the plan, and whether it held. Times are real, not scaled. */
export interface ProtocolRun {
  plan: FleetPlan;
  agents: number;
  speed: number;
  realS: number;
  /** From when a job was granted until its agent had it; from an agent's answer until it is settled in the log. */
  dispatchMs: { p50: number; p99: number };
  settleMs: { p50: number; p99: number };
  settled: number;
  /** Persisted by the broker, all streams, and for each settled job. */
  messages: number;
  messagesPerJob: number;
  /** Of the process that holds the coordinator, percent of one core. */
  coordinatorCpu: number;
  expired: number;
  /** Results that changed nothing: stale, doubled, of a lost life. */
  refused: number;
  /** Verdicts against what an agent said. */
  overruled: number;
  suspected: number;
  breaches: string[];
}

/** Label by which a simulated target finds its kind. */
const KIND = "vibeserve.dev/simulated.kind";
/** Agents of one process: more would not answer in time on one core. */
const AGENTS_A_PROCESS = 1_000;

/**
 * The fleet with a real broker, coordinator and protocol: simulated agents in processes of their own take the times and answers that virtual time would draw. Rejects
 * where something does not start or the signal aborts; leaves no process and no file behind.
 */
export async function playOverProtocol(options: ProtocolOptions): Promise<ProtocolRun> {
  const { fleet, seed, speed, signal, say } = options;
  await using own = new AsyncDisposableStack();
  const dir = own.use(temporaryFolder("simulate")).path;
  const [root, data] = [join(dir, "root"), join(dir, "data")];
  const catalog = catalogOf(fleet.skills);
  writeInstallation(root, catalog);
  const members = fleet.kinds.filter((kind) => measures(fleet, kind)).flatMap(membersOf);
  enrolBeforehand(data, members);
  const campaigns = campaignsOf(fleet);
  const watched = new CoordinatorWatch(members);
  const { settings, version } = options;
  const coordinator = own.use(
    await Coordinator.start({
      settings: { ...aloneIn(data, settings), root, requalify: "ask" },
      version,
      log: (event, facts) => watched.heard(event, facts),
      handlers: (product) => ({ ...product, ...simulatedTurns(options, catalog, campaigns, product) }),
      ...(options.leaseTtlMs === undefined ? {} : { leaseTtlMs: options.leaseTtlMs }),
    }),
  );
  say(`${members.length} agents connect`);
  const { broker } = coordinator;
  const model: FleetModel = { fleet, seed, speed };
  const crowds = [];
  for (let n = 0; n * AGENTS_A_PROCESS < members.length; n++)
    crowds.push(
      await startCrowd(broker.url, { members: members.slice(n * AGENTS_A_PROCESS, (n + 1) * AGENTS_A_PROCESS), model }, dir, n, own),
    );
  await unlessAborted(watched.allJoined, signal);

  say(`${campaigns.length} campaigns begin; a simulated hour takes ${(3_600 / speed).toFixed(0)} s`);
  const [from, cpu] = [Date.now(), process.cpuUsage()];
  const pauses = new Map<string, number>();
  const playing = campaigns.map(async (planned, i): Promise<{ planned: PlannedCampaign; actor: CampaignActor }> => {
    await delay(planned.startMs / speed, signal);
    const actor = await coordinator.submit(targetFor(planned, targetName(i), speed), { baselines: [], repeat: null });
    watched.onPause(actor.id, () => {
      pauses.set(actor.id, (pauses.get(actor.id) ?? 0) + 1);
      void actor.resume("simulated: somebody looked at the device");
    });
    await actor.ended;
    return { planned, actor };
  });
  const ended = await unlessAborted(Promise.all(playing), signal);
  const [realMs, used] = [Date.now() - from, process.cpuUsage(cpu)];

  const waits: number[] = [];
  for (const crowd of crowds) {
    crowd.send("waits");
    waits.push(...(await new Promise<number[]>((resolve) => crowd.once("message", (answer) => resolve(answer as number[])))));
  }
  const nc = await connectBus(credentialOf(broker, "coordinator"));
  own.defer(() => nc.close());
  const bus = { nc, js: jetstream(nc), jsm: await jetstreamManager(nc) };
  const played: Played[] = [];
  const found: string[] = [];
  for (const { planned, actor } of ended) {
    // What comes late is appended still.
    const { state } = actor;
    const events = (await readLog(bus, actor.id)).slice(0, state.seq).map((logged) => logged.event);
    played.push({ planned, state, events, pauses: pauses.get(actor.id) ?? 0 });
    found.push(...breaches(events, state, watched.tokens).map((breach) => `campaign ${planned.id}: ${breach}`));
  }
  let messages = 0;
  for (const name of STREAM_NAMES) messages += (await bus.jsm.streams.info(name)).state.last_seq;
  return {
    plan: planOf(recordedRun(model, from, played, watched.leases, watched.comings)),
    ...{ agents: members.length, speed, realS: realMs / 1_000 },
    dispatchMs: quantiles(waits),
    ...figures(played, messages),
    coordinatorCpu: (used.user + used.system) / 10 / realMs,
    suspected: watched.suspected,
    breaches: found,
  };
}

/** What the logs say of the path. */
function figures(played: readonly Played[], messages: number) {
  const facts = played.flatMap((p) => p.events);
  const results = facts.flatMap(({ fact, at }) => (fact.type === "job.settled" ? [{ ...fact, at }] : []));
  const accepted = results.filter((fact) => fact.accepted);
  return {
    settleMs: quantiles(accepted.map(({ at, result }) => Math.max(0, at - result.endedAt))),
    settled: accepted.length,
    messages,
    messagesPerJob: messages / accepted.length,
    expired: facts.filter(({ fact }) => fact.type === "job.expired").length,
    refused: results.length - accepted.length,
    overruled: accepted.filter(({ verdict }) => verdict !== undefined).length,
  };
}

const quantiles = (times: number[]) => ({ p50: quantile(times, 0.5), p99: quantile(times, 0.99) });

function membersOf(kind: FleetFile["kinds"][number]): CrowdMember[] {
  return Array.from({ length: kind.count / kind.perAgent }, (_, n) => {
    const agentId = `${kind.name}-m${n}`;
    const devices = Array.from({ length: kind.perAgent }, (_d, i) => ({
      ...deviceOf(kind, `${agentId}-${i}`),
      labels: { ...labelsOf(kind), [KIND]: kind.name },
    }));
    return newMember(agentId, kind.name, devices);
  });
}

function targetFor(
  { on, experiments, devices, weight, priority, startMs, deadlineMs }: PlannedCampaign,
  name: string,
  speed: number,
): Target {
  const deadline = deadlineMs === null ? {} : { deadlineS: Math.max(1, (deadlineMs - startMs) / speed / 1_000) };
  return {
    ...targetOf(name, experiments),
    device: { [KIND]: on.name },
    ...countOf({ deviceCount: devices }),
    schedule: { weight, priority, ...deadline },
  };
}

/** An agent's turn takes its time; findings that one campaign leaves to another are left out, as they are in virtual time. */
function simulatedTurns(
  { fleet, seed, speed }: FleetModel,
  catalog: Catalog,
  campaigns: readonly PlannedCampaign[],
  product: EffectHandlers,
): Partial<EffectHandlers> {
  return {
    plan: async (_effect, { campaign }) => planNext(campaign, catalog, [], Date.now()),
    draft: async (effect, context) => {
      const planned = campaigns[Number(context.campaign.target.name.slice(1))];
      if (planned && effect.experimentId !== SEED)
        await delay(turnMs(fleet, seed, planned.id, effect.experimentId) / speed, context.signal);
      return product.draft(effect, context);
    },
  };
}
