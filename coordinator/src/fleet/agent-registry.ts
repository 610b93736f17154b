import type { JetStreamClient } from "@nats-io/jetstream";
import { Kvm, type KV, type KvEntry, type KvWatchEntry } from "@nats-io/kv";
import type { NatsConnection, Subscription } from "@nats-io/transport-node";
import {
  AgentInfo,
  Beat,
  BUCKETS,
  CodecError,
  decode,
  devicePool,
  Id,
  isBuilder,
  isSlice,
  PROTOCOL,
  RESERVED_LABEL,
  subjects,
  type Device,
  type Target,
} from "@vibeserve/shared";
import { z } from "zod";
import { AGENT_TTL_MS } from "../bus/streams.ts";
import { Allowance } from "../process/allowance.ts";
import { PhysicalDevices } from "./physical-devices.ts";

/**
 * Who is there: bucket vs-agents says what each agent is, its beats say that it lives. An agent writes its own entry when it connects and when it changes; an
 * entry counts only with the public key and pools that the agent was enrolled with, since that key checks its results and a pool decides what it is given.
 * An entry that was there before this process was counts from its agent's first beat.
 */
export interface RegistryDeps {
  nc: NatsConnection;
  js: JetStreamClient;
  /** As the agent was enrolled; null: unknown agent. */
  enrolled: (agentId: string) => { publicKey: string; pools: readonly string[] } | null;
  log: (event: string, facts: Record<string, unknown>) => void;
}

export type FleetChange =
  | { kind: "joined"; agent: AgentInfo }
  /** The same id came back as another process: what its predecessor held is void. */
  | { kind: "restarted"; agent: AgentInfo }
  | { kind: "changed"; agent: AgentInfo }
  /** It was not heard of for the TTL. */
  | { kind: "left"; agent: AgentInfo }
  /** It took its entry away itself: it has handed back what it was working on. */
  | { kind: "withdrawn"; agent: AgentInfo };

export interface Incompatible {
  version: string;
  protocol: number;
  /** And what to do about it. */
  why: string;
}

/** What an entry of any release says. */
const AnyRelease = z.looseObject({
  ...{ agentId: Id, publicKey: z.string(), version: z.string().optional() },
  protocol: z.int().optional(),
});

/** A beat may be late by this much (a busy machine, a broker restart) before its agent counts as gone. */
const GRACE_MS = 5_000;
/** Beats that differ from the last (a restarted agent's) and entries, of one agent: what is more is not read, and of entries only the last. */
const [BEATS_AT_ONCE, BEATS_PER_S] = [20, 1];
const [ENTRIES_AT_ONCE, ENTRIES_PER_S] = [20, 0.5];
/** How often it is looked whose beats stopped. */
const LOOK_MS = 1_000;
/** A loaded event loop is late by tens of ms; later than this it did not run. */
const STOOD_STILL_MS = 1_000;
const BEAT_PREFIX = subjects.beat("").length;

interface Living {
  /** Its entry, without devices that another agent has. */
  info: AgentInfo;
  /** As it wrote it. */
  said: AgentInfo;
  heardAt: number;
  /** Its last beat that was looked at: the next ones are the same, byte for byte, while this process of it lives. 2,000 come in a second from 10,000 agents. */
  beat: Uint8Array | null;
}

export class AgentRegistry implements AsyncDisposable {
  readonly #deps: RegistryDeps;
  readonly #agents = new Map<string, Living>();
  /** Entries whose agent was not heard of, or not with the life that the entry is of. */
  readonly #silent = new Map<string, AgentInfo>();
  /** Why they get no work, by id. */
  readonly #incompatible = new Map<string, Incompatible>();
  /** Who registered a device id last. */
  readonly #owners = new Map<string, string>();
  readonly #listeners = new Set<(change: FleetChange) => void>();
  readonly #beats = new Allowance(BEATS_AT_ONCE, BEATS_PER_S);
  readonly #entries = new Allowance(ENTRIES_AT_ONCE, ENTRIES_PER_S);
  readonly #physical = new PhysicalDevices();
  /** The last entries of agents that write them more often than they may. */
  readonly #postponed = new Map<string, KvEntry>();
  #bucket: KV | null = null;
  #sorted: AgentInfo[] | null = null;
  #stop: () => void = () => undefined;
  #done: Promise<void> = Promise.resolve();

  private constructor(deps: RegistryDeps) {
    this.#deps = deps;
  }

  /** Returns once all entries are read and everybody was asked for a beat; who lives is known as the beats come. */
  static async open(deps: RegistryDeps): Promise<AgentRegistry> {
    const registry = new AgentRegistry(deps);
    const bucket = (registry.#bucket = await new Kvm(deps.js).open(BUCKETS.agents));
    const watch = await bucket.watch({ key: ">" });
    const { values } = await bucket.status();
    // The watch begins with the entries that are there: they are seen once.
    const there = Promise.withResolvers<undefined>();
    if (values === 0) there.resolve(undefined);
    const beats: Subscription = deps.nc.subscribe(subjects.beat("*"), {
      callback: (error, message) => (error ? undefined : registry.#heard(message.data, message.subject)),
    });
    const looking = registry.#look();
    registry.#stop = () => {
      watch.stop();
      beats.unsubscribe();
      clearInterval(looking);
    };
    registry.#done = registry.#follow(watch, () => there.resolve(undefined));
    await there.promise;
    deps.nc.publish(subjects.roll);
    return registry;
  }

  get(agentId: string): AgentInfo | null {
    return this.#agents.get(agentId)?.info ?? null;
  }

  /** Null: it is not there, or it is of a release that this one can work with. */
  incompatible(agentId: string): Incompatible | null {
    return this.#incompatible.get(agentId) ?? null;
  }

  /** Which of its devices it is not given work for, since another agent has them; null: none. */
  twice(agentId: string): string | null {
    return this.#physical.twice(agentId);
  }

  /** When it was last heard of; null: it is not there. */
  heardAt(agentId: string): number | null {
    return this.#agents.get(agentId)?.heardAt ?? null;
  }

  /** Its lease has ended in silence, and no beat came since it was last heard there: it gets nothing more until it is heard of again. */
  fellSilent(agentId: string, since: number): void {
    const agent = this.#agents.get(agentId);
    if (!agent || agent.heardAt > since) return;
    this.#silent.set(agentId, agent.said);
    this.#drop(agentId, "left");
  }

  /** Takes away the entry of an agent that was put out. */
  async remove(agentId: string): Promise<void> {
    await this.#bucket?.delete(`${agentId}.info`);
  }

  /** By id, so that choices do not depend on who joined first. */
  list(): readonly AgentInfo[] {
    return (this.#sorted ??= [...this.#agents.values()].map((a) => a.info).sort((a, b) => (a.agentId < b.agentId ? -1 : 1)));
  }

  onChange(listener: (change: FleetChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop();
    this.#listeners.clear();
    await this.#done;
  }

  async #follow(watch: AsyncIterable<KvWatchEntry>, all: () => void): Promise<void> {
    for await (const entry of watch) {
      this.#postponed.delete(entry.key);
      if (!entry.isUpdate || this.#entries.take(entry.key)) this.#see(entry, entry.isUpdate);
      else this.#postponed.set(entry.key, entry);
      if (entry.delta === 0) all();
    }
    all();
  }

  /** alive: its agent has just written it. */
  #see(entry: KvEntry, alive: boolean): void {
    if (!entry.key.endsWith(".info")) return;
    const agentId = entry.key.slice(0, entry.key.indexOf("."));
    this.#incompatible.delete(agentId);
    if (entry.operation !== "PUT") {
      this.#silent.delete(agentId);
      this.#drop(agentId, "withdrawn");
      return;
    }
    const info = this.#read(agentId, entry);
    if (!info) return;
    if (alive && Date.now() - entry.created.getTime() < AGENT_TTL_MS) this.#living(info);
    else if (this.#agents.get(agentId)?.info.startedAt !== info.startedAt) this.#silent.set(agentId, info);
  }

  #living(said: AgentInfo): void {
    const { agentId } = said;
    const before = this.#agents.get(agentId);
    this.#silent.delete(agentId);
    if (before) this.#physical.letGo(before.said);
    const info = this.#physical.take(said);
    const twice = this.#physical.twice(agentId);
    if (twice !== null) this.#deps.log("device.twice", { agentId, why: twice });
    this.#agents.set(agentId, { info, said, heardAt: Date.now(), beat: null });
    for (const { id } of said.devices) this.#owners.set(id, agentId);
    this.#announce(before, info);
    this.#regain(agentId);
  }

  /** What this agent let go, others may have. */
  #regain(than: string): void {
    for (const agentId of this.#physical.waiting) {
      const agent = this.#agents.get(agentId);
      if (!agent || agentId === than) continue;
      const before = { ...agent };
      agent.info = this.#physical.take(agent.said);
      this.#announce(before, agent.info);
    }
  }

  #announce(before: Living | undefined, info: AgentInfo): void {
    if (!before) this.#tell({ kind: "joined", agent: info });
    else if (before.info.startedAt !== info.startedAt || before.info.pid !== info.pid) this.#tell({ kind: "restarted", agent: info });
    else if (JSON.stringify(before.info) !== JSON.stringify(info)) this.#tell({ kind: "changed", agent: info });
  }

  #ownedByOther(deviceId: string, agentId: string): boolean {
    const owner = this.#owners.get(deviceId);
    return owner !== undefined && owner !== agentId && this.#agents.has(owner);
  }

  #heard(data: Uint8Array, subject: string): void {
    const same = this.#agents.get(subject.slice(BEAT_PREFIX));
    if (same?.beat && Buffer.compare(same.beat, data) === 0) {
      same.heardAt = Date.now();
      return;
    }
    if (!this.#beats.take(subject)) return;
    let beat: Beat;
    try {
      beat = decode(Beat, data, subject);
    } catch (error) {
      if (error instanceof CodecError) return;
      throw error;
    }
    if (subject !== subjects.beat(beat.agentId)) return;
    const known = this.#agents.get(beat.agentId);
    const silent = this.#silent.get(beat.agentId);
    if (known?.info.startedAt === beat.startedAt) Object.assign(known, { heardAt: Date.now(), beat: data.slice() });
    else if (silent?.startedAt === beat.startedAt) this.#living(silent);
  }

  #read(agentId: string, entry: KvEntry): AgentInfo | null {
    const refuse = (why: string) => {
      this.#deps.log("agent.refused", { agentId, why });
      return null;
    };
    try {
      const info = this.#decoded(agentId, entry);
      if ("why" in info) {
        this.#incompatible.set(agentId, info);
        this.#silent.delete(agentId);
        this.#drop(agentId, "left");
        return refuse(info.why);
      }
      if (info.agentId !== agentId) return refuse(`registered as ${info.agentId} under ${entry.key}`);
      const enrolled = this.#deps.enrolled(agentId);
      if (enrolled?.publicKey !== info.publicKey)
        return refuse(`its public key ${info.publicKey} is not the enrolled one, ${enrolled?.publicKey ?? "none"}`);
      const stolen = info.devices.find(
        ({ id }) => !id.startsWith(agentId.slice(0, 48)) || isBuilder(id) || this.#ownedByOther(id, agentId),
      );
      if (stolen)
        return refuse(`device ${stolen.id} is not its own: an id begins with its agent's, is no builder's, and no other agent has it`);
      const foreign = info.pools.find((pool) => !enrolled.pools.includes(pool));
      if (foreign !== undefined) return refuse(`it was enrolled for ${enrolled.pools.join(", ")}, not for pool ${foreign}`);
      return info;
    } catch (error) {
      if (error instanceof CodecError) return refuse(error.message);
      throw error;
    }
  }

  /** Incompatible: an enrolled agent whose entry says another protocol, or holds what this release does not know. Throws CodecError on any other that can't be read. */
  #decoded(agentId: string, entry: KvEntry): AgentInfo | Incompatible {
    const place = `$KV.${BUCKETS.agents}.${entry.key}`;
    const enrolled = (said: Pick<AgentInfo, "agentId" | "publicKey">) =>
      said.agentId === agentId && this.#deps.enrolled(agentId)?.publicKey === said.publicKey;
    const fix = `install one release on both: this coordinator speaks protocol ${PROTOCOL}`;
    const speaks = (version: string, protocol: number) => ({
      ...{ version, protocol },
      why: `agent ${agentId}, release ${version}, speaks protocol ${protocol}; ${fix}`,
    });
    try {
      const info = decode(AgentInfo, entry.value, place);
      const { version, protocol = 1 } = info;
      return protocol !== PROTOCOL && enrolled(info) ? speaks(version, protocol) : info;
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      const said = decode(AnyRelease, entry.value, place);
      if (!enrolled(said)) throw error;
      const { version = "unknown", protocol = 1 } = said;
      if (protocol !== PROTOCOL) return speaks(version, protocol);
      return {
        version,
        protocol,
        why: `agent ${agentId}, release ${version}, says what this release does not know (${error.message}); ${fix}`,
      };
    }
  }

  /** A look that comes much too late means that this process stood still, and perhaps the agents with it: they get another TTL to be heard of. */
  #look(): NodeJS.Timeout {
    let lookedAt = Date.now();
    return setInterval(() => {
      const now = Date.now();
      for (const [key, entry] of this.#postponed)
        if (this.#entries.take(key)) {
          this.#postponed.delete(key);
          this.#see(entry, true);
        }
      const stoodStill = now - lookedAt - LOOK_MS > STOOD_STILL_MS;
      lookedAt = now;
      for (const [agentId, agent] of this.#agents)
        if (stoodStill) agent.heardAt = now;
        else if (now - agent.heardAt > AGENT_TTL_MS + GRACE_MS) {
          // Cut off, it may come back as it was: its entry stands.
          this.#silent.set(agentId, agent.said);
          this.#drop(agentId, "left");
        }
    }, LOOK_MS).unref();
  }

  #drop(agentId: string, kind: "left" | "withdrawn"): void {
    const gone = this.#agents.get(agentId);
    if (!gone) return;
    this.#agents.delete(agentId);
    this.#physical.letGo(gone.said);
    this.#tell({ kind, agent: gone.info });
    this.#regain(agentId);
  }

  #tell(change: FleetChange): void {
    this.#sorted = null;
    const { agentId, pid, pools, devices, state } = change.agent;
    this.#deps.log(`agent.${change.kind}`, { agentId, pid, pools, devices: devices.map((d) => d.id), state });
    for (const listener of [...this.#listeners]) listener(change);
  }
}

/**
 * Devices of ready agents that carry all the labels, and beside which their agent has as many in the same pool that do as make `count`; real ones before simulated
 * ones. A reserved one only where it is asked for.
 */
export function matching(
  agents: readonly AgentInfo[],
  { device: labels, deviceCount = 1 }: Pick<Target, "device" | "deviceCount">,
): { agent: AgentInfo; device: Device }[] {
  return agents
    .filter((agent) => agent.state === "ready")
    .flatMap((agent) => agent.devices.map((device) => ({ agent, device })))
    .filter(({ agent, device }) => carries(device, labels) && (deviceCount === 1 || together(agent, device, labels).length >= deviceCount))
    .sort((a, b) => Number(a.device.simulated) - Number(b.device.simulated));
}

/** Devices of the agent in this one's pool that carry the labels. A slice of a card is alone: a process of CUDA sees only one of them. */
export const together = (agent: AgentInfo, device: Device, labels: Target["device"]): Device[] =>
  isSlice(device)
    ? [device]
    : agent.devices.filter((other) => devicePool(agent, other) === devicePool(agent, device) && carries(other, labels));

const carries = (device: Device, labels: Target["device"]): boolean =>
  device.labels[RESERVED_LABEL] === labels[RESERVED_LABEL] && missingLabels(device, labels).length === 0;

/** "key=value (it has other)" for each label that a device lacks. */
export function missingLabels(device: Device, labels: Readonly<Record<string, string>>): string[] {
  return Object.entries(labels)
    .filter(([key, value]) => device.labels[key] !== value)
    .map(([key, value]) => `${key}=${value} (it has ${device.labels[key] ?? "none"})`);
}
