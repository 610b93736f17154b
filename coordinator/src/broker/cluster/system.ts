import { createInbox, type NatsConnection } from "@nats-io/transport-node";
import { z } from "zod";
import { BrokerSettingsError } from "../settings.ts";

/** One server's answer to a question that all of them are asked over the system account. */
export interface Answer<T> {
  server: { id: string; name: string; version: string };
  /** Null: it refused. */
  data: T | null;
  error: string | null;
}

export interface JetStreamFacts {
  /** Does it store at all? */
  enabled: boolean;
  syncAlways: boolean;
  storeDir: string;
  /** Servers that store together with it, itself among them, whether they are up or not. */
  peers: number;
  /** Name of the server that leads them; null: they are choosing one, and nothing is answered meanwhile. */
  leader: string | null;
}

const Envelope = z.object({
  server: z.object({ id: z.string(), name: z.string(), ver: z.string() }),
  data: z.unknown().optional(),
  error: z.object({ code: z.number().optional(), description: z.string().optional() }).optional(),
});
const Jsz = z.object({
  disabled: z.boolean().default(false),
  config: z.object({ sync_always: z.boolean().default(false), store_dir: z.string().default("") }).prefault({}),
  meta_cluster: z.object({ cluster_size: z.int(), leader: z.string().default("") }).optional(),
});
const AccountIds = z.array(z.string());

/** A server that is up answers in ms; one that is away costs each change of an account this long. */
const ANSWERS_MS = 2_000;
/** Nobody knows beforehand how many servers do not store; they answer together with the others. */
const LAST_ANSWER_MS = 300;

/** Questions to every server of a cluster (docs.nats.io, "System events"; nats-server events.go and accounts.go). */
export class ServersOfCluster {
  readonly #system: NatsConnection;
  /** How many servers there are as far as is known, those that are away included. */
  #size = 1;

  constructor(system: NatsConnection) {
    this.#system = system;
  }

  get size(): number {
    return this.#size;
  }

  /** Of every server that answers. Throws where none does. */
  async jetstream(): Promise<Answer<JetStreamFacts>[]> {
    const jsz = (data: unknown): JetStreamFacts => {
      const { disabled, config, meta_cluster } = Jsz.parse(data);
      const { cluster_size: peers, leader } = meta_cluster ?? { cluster_size: 1, leader: "itself" };
      return { enabled: !disabled, syncAlways: config.sync_always, storeDir: config.store_dir, peers, leader: leader || null };
    };
    const answers = await this.#ask("$SYS.REQ.SERVER.PING.JSZ", "{}", jsz, null);
    this.#size = Math.max(answers.length, ...answers.map(({ data }) => (data?.enabled ? data.peers : 1)));
    return answers;
  }

  /** Gives every server an account's new claim. Returns how many took it; throws where one refuses it or none answers. */
  async update(claim: string): Promise<number> {
    return accepted(await this.#ask("$SYS.REQ.CLAIMS.UPDATE", claim));
  }

  async delete(request: string): Promise<number> {
    return accepted(await this.#ask("$SYS.REQ.CLAIMS.DELETE", request));
  }

  /** Accounts of each server that answers, by their public keys. */
  async accounts(): Promise<Set<string>[]> {
    const answers = await this.#ask("$SYS.REQ.CLAIMS.LIST", "", (data) => AccountIds.parse(data));
    return answers.map(({ data }) => new Set(data ?? []));
  }

  /** An account's claim as some server has it; null: none. */
  async lookup(account: string): Promise<string | null> {
    const { data } = await this.#system.request(`$SYS.REQ.ACCOUNT.${account}.CLAIMS.LOOKUP`, "", { timeout: ANSWERS_MS });
    return data.length === 0 ? null : new TextDecoder().decode(data);
  }

  /** Calls back with the id of each server that is heard of. */
  onServer(heard: (serverId: string) => void): void {
    this.#system.subscribe("$SYS.SERVER.*.STATSZ", { callback: (_error, { subject }) => heard(subject.split(".")[2] ?? "") });
  }

  /** Until as many as there are have answered; enough null: until no more do. */
  async #ask<T>(
    subject: string,
    payload: string,
    parse: (data: unknown) => T = (data) => data as T,
    enough: number | null = this.#size,
  ): Promise<Answer<T>[]> {
    const answers: Answer<T>[] = [];
    const reply = createInbox();
    const done = Promise.withResolvers<undefined>();
    const finish = (): void => done.resolve(undefined);
    let quiet: NodeJS.Timeout | undefined;
    const subscription = this.#system.subscribe(reply, {
      callback: (error, message) => {
        // No responders: nobody is there to be waited for.
        if (error || (message.data.length === 0 && message.headers?.code === 503)) {
          finish();
          return;
        }
        try {
          const { server, data, error: refused } = Envelope.parse(message.json());
          const { id, name, ver: version } = server;
          answers.push({
            server: { id, name, version },
            ...(refused ? { data: null, error: refused.description ?? `code ${refused.code ?? "?"}` } : { data: parse(data), error: null }),
          });
        } catch (cause) {
          done.reject(new Error(`${subject}: an answer can't be read: ${String(cause)}`, { cause }));
        }
        if (enough !== null && answers.length >= enough) finish();
        clearTimeout(quiet);
        if (enough === null) quiet = setTimeout(finish, LAST_ANSWER_MS);
      },
    });
    const timer = setTimeout(finish, ANSWERS_MS);
    try {
      this.#system.publish(subject, payload, { reply });
      await done.promise;
    } finally {
      clearTimeout(timer);
      clearTimeout(quiet);
      subscription.unsubscribe();
    }
    if (answers.length === 0) throw new Error(`no server of the cluster answers ${subject} in ${ANSWERS_MS} ms`);
    return answers;
  }
}

function accepted(answers: readonly Answer<unknown>[]): number {
  const refusal = answers.find(({ error }) => error !== null);
  if (refusal) throw new Error(`server ${refusal.server.name} refuses an account: ${refusal.error ?? ""}`);
  return answers.length;
}

const storingOf = (answers: readonly Answer<JetStreamFacts>[]) =>
  answers.flatMap(({ server, data }) => (data?.enabled ? [{ server, facts: data }] : []));

/**
 * Why it is too early to go by what they say of storing; null: it is not. A leader that a new cluster has just chosen counts itself and who answered it so far, while
 * those that follow it already count all: taken at its word, three servers would store each message once. `named`: how many there are to be at least.
 */
export function unsettled(answers: readonly Answer<JetStreamFacts>[], named = 1): string | null {
  const storing = storingOf(answers);
  const lost = storing.find(({ facts }) => facts.leader === null);
  if (lost) return `server ${lost.server.name} knows no leader; are most servers up and connected?`;
  for (const { server, facts } of storing) {
    const other = storing.find((one) => one.facts.leader === facts.leader && one.facts.peers > facts.peers);
    if (other)
      return `server ${server.name} counts ${facts.peers} that store together, and ${other.server.name} ${other.facts.peers}; are all up and connected?`;
  }
  const most = Math.max(0, ...storing.map(({ facts }) => facts.peers), answers.length);
  if (most < named)
    return `${most} of the ${named} servers that are named answer, or are counted by one that does; are all up and connected?`;
  return null;
}

/**
 * Refuses servers that acknowledge what a power cut can still lose, or that are fewer than `replicas` (null: three where there are so many, else one). Returns how many
 * servers are to store each message. Throws BrokerSettingsError naming the server.
 */
export function requireDurableCluster(answers: readonly Answer<JetStreamFacts>[], replicas: number | null): number {
  const storing = storingOf(answers);
  const first = storing[0];
  const refuse = (message: string) => {
    const { server, facts } = first ?? { server: { version: "" }, facts: { syncAlways: false, storeDir: "" } };
    return new BrokerSettingsError({ version: server.version, syncAlways: facts.syncAlways, storeDir: facts.storeDir }, message);
  };
  if (!first) throw refuse(`JetStream is not enabled on any server: ${answers.map(({ server }) => server.name).join(", ")}`);
  const lazy = storing.filter(({ facts }) => !facts.syncAlways).map(({ server }) => server.name);
  if (lazy.length > 0)
    throw refuse(
      `server ${lazy.join(", ")} acknowledges before it syncs (sync_interval is not always); VibeServe needs jetstream { sync_interval: always } on every server`,
    );
  const fewest = storing.reduce((least, next) => (next.facts.peers < least.facts.peers ? next : least), first);
  const wanted = replicas ?? (fewest.facts.peers >= 3 ? 3 : 1);
  if (fewest.facts.peers < wanted)
    throw refuse(
      `server ${fewest.server.name} stores with ${fewest.facts.peers} in all, itself among them, and VIBESERVE_NATS_REPLICAS is ${wanted}: add servers to the cluster, or ask for fewer replicas`,
    );
  return wanted;
}
