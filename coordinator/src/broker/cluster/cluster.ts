import { mkdirSync } from "node:fs";
import { createAccount } from "@nats-io/nkeys";
import { AuthorizationError, type NatsConnection } from "@nats-io/transport-node";
import { delay, patiently } from "../../process/backoff.ts";
import type { BrokerAccess } from "../access.ts";
import { BrokerStartError } from "../launch.ts";
import { admitted, loadAgents, ROLES, saveAgents, type AgentPrincipal, type Role } from "../principals.ts";
import { connectSystem, type BrokerSettings } from "../settings.ts";
import {
  agentAccountJwt,
  closedAccountJwt,
  deletionJwt,
  isAgentsAccount,
  roleAccountJwt,
  roleJwt,
  userJwt,
  type ClusterAgent,
} from "./claims.ts";
import { urlOf } from "./key-folders.ts";
import { caOf, pinOf, readClusterKeys, type ClusterKeys } from "./keys.ts";
import { requireDurableCluster, ServersOfCluster, unsettled } from "./system.ts";

/**
 * A NATS cluster in operator mode that others run.
 *   N1. Who is in stands in agents.json; what servers have is made to follow, at the start and whenever a server is heard of that was not there before.
 *   N2. An agent that is put out has its account closed on every server that answers before `expel` returns. A server that is away takes the closed claim when it
 *       comes back, since that is newer than its own. The account is deleted only when every server has closed it.
 *   N3. Two changes of one account never overlap: a claim that was made before it was closed is not sent after.
 */
export interface ClusterOptions {
  servers: readonly string[];
  /** Folder `coordinator` of `vibeserve keys`. */
  keysDir: string;
  /** Folder of who is enrolled. */
  dir: string;
  /** Null: three where there are so many servers, else one. */
  replicas: number | null;
  /** HOST or HOST:PORT that nodes dial, where it is not what `vibeserve keys` was told. */
  advertise: string | null;
  log: (event: string, facts: Record<string, unknown>) => void;
  /** Ends the wait for the servers. Absent: only its two minutes do. */
  signal?: AbortSignal | undefined;
}

export class Cluster implements BrokerAccess {
  readonly url: string;
  readonly publicUrl: string;
  readonly ca: string;
  readonly fingerprint: string;
  readonly keys: string;
  readonly pid = null;
  readonly replicas: number;
  readonly settings: BrokerSettings;
  readonly claims: Readonly<Record<Role, string>>;
  readonly #secrets: ClusterKeys;
  readonly #system: NatsConnection;
  readonly #all: ServersOfCluster;
  readonly #log: ClusterOptions["log"];
  #agents: readonly ClusterAgent[];
  /** Last change of each account (N3), and the last comparison. */
  readonly #changing = new Map<string, Promise<unknown>>();
  /** When the last claim of each account was made, seconds. */
  readonly #issued = new Map<string, number>();
  readonly #heard = new Set<string>();

  private constructor(
    options: ClusterOptions,
    secrets: ClusterKeys,
    system: NatsConnection,
    known: Pick<Cluster, "settings" | "replicas" | "claims">,
    all: ServersOfCluster,
  ) {
    this.url = options.servers.join(",");
    this.publicUrl = options.advertise === null ? secrets.servers.join(",") : urlOf(options.advertise);
    this.ca = caOf(secrets);
    this.fingerprint = pinOf(secrets);
    this.keys = options.dir;
    ({ settings: this.settings, replicas: this.replicas, claims: this.claims } = known);
    this.#secrets = secrets;
    this.#system = system;
    this.#all = all;
    this.#log = options.log;
    this.#agents = loadAgents(options.dir).map((agent) => ({ ...agent, account: agent.account ?? createAccount().getPublicKey() }));
  }

  /** Throws BrokerStartError, BrokerSettingsError or ConfigError. */
  static async start(options: ClusterOptions): Promise<Cluster> {
    const { servers, keysDir, dir, replicas, log } = options;
    const secrets = readClusterKeys(keysDir);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const claims = Object.fromEntries(
      await Promise.all(ROLES.map(async (role) => [role, await roleJwt(secrets, role)] as const)),
    ) as Record<Role, string>;
    const system = await whenUp(options, `no NATS server of ${servers.join(", ")} takes us in`, () =>
      connectSystem(servers, secrets.seeds.system, caOf(secrets), claims.system),
    );
    try {
      const all = new ServersOfCluster(system);
      const patientUntil = performance.now() + ALL_MS;
      const answers = await whenUp(options, "JetStream is not ready", async () => {
        const found = await all.jetstream();
        const early = unsettled(found, performance.now() < patientUntil ? servers.length : 1);
        if (early !== null) throw new Error(early);
        return found;
      });
      const wanted = requireDurableCluster(answers, replicas);
      const first = answers.find(({ data }) => data?.enabled);
      const settings = { version: first?.server.version ?? "", syncAlways: true, storeDir: first?.data?.storeDir ?? "" };
      const cluster = new Cluster(options, secrets, system, { settings, replicas: wanted, claims }, all);
      await cluster.#begin(answers.map(({ server }) => server.id));
      log("broker.joined", {
        servers: answers.map(({ server }) => server.name),
        of: all.size,
        version: settings.version,
        replicas: wanted,
      });
      return cluster;
    } catch (error) {
      await system.close();
      throw error;
    }
  }

  get seeds(): ClusterKeys["seeds"] {
    return this.#secrets.seeds;
  }

  get agents(): readonly AgentPrincipal[] {
    return this.#agents;
  }

  async enroll(agent: AgentPrincipal): Promise<boolean> {
    const agents = admitted(this.#agents, this.seeds, agent);
    if (agents === null) return false;
    const account = this.#agents.find((a) => a.agentId === agent.agentId)?.account ?? createAccount().getPublicKey();
    if (agents !== this.#agents) this.#keep(agents.map((a) => ({ ...a, account: a.account ?? account })));
    await this.#open(account);
    return true;
  }

  async claimOf(agentId: string): Promise<string | undefined> {
    const agent = this.#agents.find((a) => a.agentId === agentId);
    return agent && (await userJwt(this.#secrets, agentId, agent.publicKey, agent.account));
  }

  async expel(agentId: string): Promise<void> {
    const agent = this.#agents.find((a) => a.agentId === agentId);
    // Asked again: what was not done the first time is.
    if (!agent) return this.#compare();
    this.#keep(this.#agents.filter((a) => a !== agent));
    await this.#close(agent.account);
  }

  restart(): Promise<void> {
    return Promise.reject(new Error(`${this.url} is not ours to restart: look at the disks and logs of its servers`));
  }

  async close(): Promise<void> {
    await this.#system.close();
  }

  /** What each role may do is this release's; then agents. */
  async #begin(serverIds: readonly string[]): Promise<void> {
    for (const id of serverIds) this.#heard.add(id);
    this.#keep(this.#agents);
    for (const role of ["coordinator", "client", "joiner"] as const) await this.#all.update(await roleAccountJwt(this.#secrets, role));
    for (let i = 0; i < this.#agents.length; i += AT_ONCE)
      await Promise.all(this.#agents.slice(i, i + AT_ONCE).map(({ account }) => this.#open(account)));
    await this.#compare();
    this.#all.onServer((id) => {
      if (this.#heard.has(id)) return;
      this.#heard.add(id);
      void this.#appeared().catch((error: unknown) => {
        // Heard of again in 10 s, it is looked at again.
        this.#heard.delete(id);
        this.#log("broker.compare-failed", { serverId: id, why: words(error) });
      });
    });
  }

  async #appeared(): Promise<void> {
    const answers = await this.#all.jetstream();
    this.#log("broker.server-appeared", { servers: answers.map(({ server }) => server.name) });
    try {
      requireDurableCluster(answers, this.replicas);
    } catch (error) {
      this.#log("broker.not-durable", { trouble: words(error) });
    }
    await this.#compare();
  }

  /** N1. Closes agents' accounts of which nobody is enrolled, and opens what a server lacks. One comparison at a time. */
  #compare(): Promise<void> {
    return this.#inOrder("all", () => this.#compareOnce());
  }

  async #compareOnce(): Promise<void> {
    const lists = await this.#all.accounts();
    const ours = new Set([...Object.values(this.#secrets.accounts), ...this.#agents.map(({ account }) => account)]);
    for (const account of new Set(lists.flatMap((list) => [...list]))) {
      if (ours.has(account)) continue;
      const claim = await this.#all.lookup(account);
      if (claim !== null && isAgentsAccount(this.#secrets, claim)) await this.#close(account);
    }
    for (const { account } of this.#agents) if (lists.some((list) => !list.has(account))) await this.#open(account);
  }

  #keep(agents: readonly ClusterAgent[]): void {
    this.#agents = agents;
    saveAgents(this.keys, agents);
  }

  #open(account: string): Promise<void> {
    return this.#inOrder(account, async () => {
      const agent = this.#agents.find((a) => a.account === account);
      if (!agent) return;
      this.#issued.set(account, seconds());
      await this.#all.update(await agentAccountJwt(this.#secrets, agent));
    });
  }

  /** N2. */
  #close(account: string): Promise<void> {
    return this.#inOrder(account, async () => {
      // The newer claim wins, and claims know seconds only.
      while (seconds() <= (this.#issued.get(account) ?? 0)) await delay(50);
      const closed = await this.#all.update(await closedAccountJwt(this.#secrets, account));
      if (closed < this.#all.size) {
        this.#log("broker.server-away", { account, closed, of: this.#all.size });
        return;
      }
      try {
        await this.#all.delete(await deletionJwt(this.#secrets, [account]));
      } catch (error) {
        // Servers that allow no deletion keep a closed account for ever; nobody can use it.
        this.#log("broker.account-kept", { account, why: words(error) });
      }
    });
  }

  /** N3. */
  #inOrder(what: string, change: () => Promise<void>): Promise<void> {
    const next = (this.#changing.get(what) ?? Promise.resolve()).catch(() => undefined).then(change);
    this.#changing.set(what, next);
    const forget = () => {
      if (this.#changing.get(what) === next) this.#changing.delete(what);
    };
    next.then(forget, forget);
    return next;
  }
}

/**
 * Servers that start together with the coordinator find each other, and a leader, in half a minute: names that are not known yet, a network that lets young pods through
 * late, a Service that has nobody before a server's readiness was looked at.
 */
const UP_MS = 120_000;

/** Of servers that are named, those that do not come up are waited for this long: with fewer, messages might be stored once where they were to be stored three times. */
const ALL_MS = 10_000;

/** Tries until it comes true, and says why it waits each time that this is another reason. Throws BrokerStartError at once where the servers do not know our keys or the signal aborts, else after 2 min. */
async function whenUp<T>({ servers, log, signal }: ClusterOptions, otherwise: string, attempt: () => Promise<T>): Promise<T> {
  let said = "";
  try {
    return await patiently(
      UP_MS,
      () =>
        attempt().catch((error: unknown) => {
          const why = words(error);
          if (why !== said) log("broker.waited-for", { servers, trouble: `the NATS servers are waited for: ${why}` });
          said = why;
          throw error;
        }),
      (error) => error instanceof AuthorizationError || signal?.aborted === true,
    );
  } catch (error) {
    throw new BrokerStartError(`${otherwise}: ${words(error)}`, { cause: error });
  }
}

/** Accounts that are told at once at the start. */
const AT_ONCE = 64;

const seconds = (): number => Math.floor(Date.now() / 1000);

const words = (error: unknown): string => (error instanceof Error ? error.message : String(error));
