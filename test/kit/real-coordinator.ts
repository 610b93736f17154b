import { join } from "node:path";
import { createUser } from "@nats-io/nkeys";
import type { NatsConnection } from "@nats-io/transport-node";
import type { CampaignFact } from "@vibeserve/shared";
import { ApiClient } from "../../coordinator/src/api/client.ts";
import { credentialOf } from "../../coordinator/src/broker/access.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import type { CampaignActor } from "../../coordinator/src/campaign/campaign.actor.ts";
import { loadSettings, type Settings } from "../../coordinator/src/config.ts";
import { Coordinator } from "../../coordinator/src/coordinator.ts";
import type { Observer } from "../../coordinator/src/observe/observer.ts";
import { FakeAgent, type FakeAgentOptions } from "./fake-agent.ts";
import { natsServer } from "./real-broker.ts";
import { writeTinyInstallation, type TinySkill } from "./tiny-stack.ts";

export const POOL = "local";

export interface RealCoordinator extends AsyncDisposable {
  coordinator: Coordinator;
  /** What it logged, in order. */
  reports: { event: string; facts: Record<string, unknown> }[];
  /** Resolves at the next event of this name. */
  reported(event: string): Promise<Record<string, unknown>>;
  enroll(agentId: string): Promise<string>;
  /** One that came in otherwise. */
  agentWith(agentId: string, seed: string, options?: Partial<FakeAgentOptions>): Promise<FakeAgent>;
  agent(agentId: string, options?: Partial<FakeAgentOptions>): Promise<FakeAgent>;
  client(): Promise<ApiClient>;
  /** A connection with an agent's rights, and nothing at its other end. */
  connect(agentId: string): Promise<NatsConnection>;
}

/** A whole coordinator in this process, with a real broker, on a tiny installation in `dir`. */
export async function startCoordinator(
  dir: string,
  options: {
    leaseTtlMs?: number;
    minFreeBytes?: number;
    pausesMs?: readonly number[];
    anthropic?: Partial<Settings["anthropic"]>;
    skills?: readonly TinySkill[];
    cli?: string;
    usd?: number | null;
    openai?: Settings["openai"];
    path?: string;
    settings?: Partial<Settings>;
    requalify?: Settings["requalify"];
    observer?: Observer;
  } = {},
): Promise<RealCoordinator> {
  const root = join(dir, "root");
  writeTinyInstallation(root, options.skills);
  const reports: RealCoordinator["reports"] = [];
  const waiting: { event: string; resolve: (facts: Record<string, unknown>) => void }[] = [];
  const settings = loadSettings({ data: join(dir, "data") });
  const {
    anthropic,
    skills: _skills,
    cli = settings.cli,
    usd = settings.usd,
    openai = settings.openai,
    path = settings.path,
    settings: more,
    requalify = settings.requalify,
    ...rest
  } = options;
  const coordinator = await Coordinator.start({
    settings: {
      ...settings,
      natsServer,
      root,
      cli,
      usd,
      openai,
      path,
      requalify,
      anthropic: { ...settings.anthropic, apiKey: null, baseUrl: null, ...anthropic },
      ...more,
    },
    version: "0.0.0",
    log: (event, facts) => {
      reports.push({ event, facts });
      for (const w of waiting.filter((x) => x.event === event)) waiting.splice(waiting.indexOf(w), 1)[0]?.resolve(facts);
    },
    ...rest,
  });
  const { broker } = coordinator;
  const seeds = new Map<string, string>();
  const enroll = async (agentId: string) => {
    const known = seeds.get(agentId);
    if (known !== undefined) return known;
    const key = createUser();
    if (!(await coordinator.enroll({ agentId, publicKey: key.getPublicKey(), pools: [POOL] }))) throw new Error(`${agentId} was refused`);
    const seed = new TextDecoder().decode(key.getSeed());
    seeds.set(agentId, seed);
    return seed;
  };
  const agentWith: RealCoordinator["agentWith"] = async (agentId, seed, more = {}) =>
    FakeAgent.start({ url: broker.url, ca: broker.ca, agentId, seed, claim: await broker.claimOf(agentId), pool: POOL, ...more });
  return {
    coordinator,
    reports,
    reported: (event) => new Promise((resolve) => waiting.push({ event, resolve })),
    enroll,
    client: async () =>
      ApiClient.connect({
        v: 1,
        kind: "client",
        servers: broker.url.split(","),
        ca: broker.ca,
        seed: broker.seeds.client,
        claim: broker.claims.client,
        pid: process.pid,
        startedAt: 1,
      }),
    connect: async (agentId) => {
      const seed = await enroll(agentId);
      return connectBus({ ...credentialOf(broker, "client"), seed, claim: await broker.claimOf(agentId), principal: agentId });
    },
    agentWith,
    agent: async (agentId, more) => agentWith(agentId, await enroll(agentId), more),
    [Symbol.asyncDispose]: async () => coordinator[Symbol.asyncDispose](),
  };
}

/** Resolves with the first fact of this type that is, or will be, in the campaign's log. */
export async function factOf<T extends CampaignFact["type"]>(
  real: RealCoordinator,
  actor: CampaignActor,
  type: T,
  matches: (fact: Extract<CampaignFact, { type: T }>) => boolean = () => true,
): Promise<Extract<CampaignFact, { type: T }>> {
  const isWanted = (fact: CampaignFact): fact is Extract<CampaignFact, { type: T }> =>
    fact.type === type && matches(fact as Extract<CampaignFact, { type: T }>);
  for (;;) {
    const next = real.reported(type);
    const found = actor.events.map((e) => e.event.fact).find(isWanted);
    if (found) return found;
    await next;
  }
}
