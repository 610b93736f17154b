import { Kvm, type KV, type KvEntry } from "@nats-io/kv";
import type { JetStreamClient } from "@nats-io/jetstream";
import { AgentInfo, BUCKETS, CodecError, decode, type Device } from "@vibeserve/shared";
import { AGENT_TTL_MS } from "../bus/streams.ts";

/**
 * Who is there: a view of bucket vs-agents. An agent writes its own entry and refreshes it; an entry that is not refreshed within the bucket's
 * TTL is gone. An entry counts only with the public key that the broker knows the agent by, since that key checks its results.
 */
export interface RegistryDeps {
  js: JetStreamClient;
  /** Public key with which the agent was enrolled; null: unknown agent. */
  publicKeyOf: (agentId: string) => string | null;
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

/** A refresh may be late by this much (a busy machine, a broker restart) before its agent counts as gone. */
const GRACE_MS = 5_000;
/** A loaded event loop is late by tens of ms; later than this it did not run. */
const STOOD_STILL_MS = 1_000;

export class AgentRegistry implements AsyncDisposable {
  readonly #deps: RegistryDeps;
  readonly #agents = new Map<string, { info: AgentInfo; timer: NodeJS.Timeout }>();
  readonly #heardAt = new Map<string, number>();
  readonly #listeners = new Set<(change: FleetChange) => void>();
  #bucket: KV | null = null;
  #stop: () => void = () => undefined;
  #done: Promise<void> = Promise.resolve();

  private constructor(deps: RegistryDeps) {
    this.#deps = deps;
  }

  /** Returns once everybody who is registered now is known. */
  static async open(deps: RegistryDeps): Promise<AgentRegistry> {
    const registry = new AgentRegistry(deps);
    const bucket = (registry.#bucket = await new Kvm(deps.js).open(BUCKETS.agents));
    const watch = await bucket.watch({ key: "*.info" });
    registry.#stop = () => {
      watch.stop();
    };
    for await (const key of await bucket.keys("*.info")) {
      const entry = await bucket.get(key);
      if (entry) registry.#see(entry);
    }
    registry.#done = registry.#follow(watch);
    return registry;
  }

  get(agentId: string): AgentInfo | null {
    return this.#agents.get(agentId)?.info ?? null;
  }

  /** When its entry was last written, those that are gone included; null: not since this registry opened. */
  heardAt(agentId: string): number | null {
    return this.#heardAt.get(agentId) ?? null;
  }

  /** By id, so that choices do not depend on who joined first. */
  list(): AgentInfo[] {
    return [...this.#agents.values()].map((a) => a.info).sort((a, b) => (a.agentId < b.agentId ? -1 : 1));
  }

  /** Takes away the entry of an agent that was put out. */
  async remove(agentId: string): Promise<void> {
    await this.#bucket?.delete(`${agentId}.info`);
  }

  onChange(listener: (change: FleetChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop();
    for (const { timer } of this.#agents.values()) clearTimeout(timer);
    this.#listeners.clear();
    await this.#done;
  }

  async #follow(watch: AsyncIterable<KvEntry>): Promise<void> {
    for await (const entry of watch) this.#see(entry);
  }

  #see(entry: KvEntry): void {
    const agentId = entry.key.slice(0, entry.key.indexOf("."));
    if (entry.operation !== "PUT") {
      this.#drop(agentId, "withdrawn");
      return;
    }
    const info = this.#read(agentId, entry);
    if (!info) return;
    this.#heardAt.set(agentId, entry.created.getTime());
    const before = this.#agents.get(agentId);
    clearTimeout(before?.timer);
    const age = Math.max(0, Date.now() - entry.created.getTime());
    this.#agents.set(agentId, { info, timer: this.#expire(agentId, Math.max(0, AGENT_TTL_MS + GRACE_MS - age)) });
    if (!before) this.#tell({ kind: "joined", agent: info });
    else if (before.info.startedAt !== info.startedAt || before.info.pid !== info.pid) this.#tell({ kind: "restarted", agent: info });
    else if (JSON.stringify(before.info) !== JSON.stringify(info)) this.#tell({ kind: "changed", agent: info });
  }

  #read(agentId: string, entry: KvEntry): AgentInfo | null {
    const refuse = (why: string) => {
      this.#deps.log("agent.refused", { agentId, why });
      return null;
    };
    try {
      const info = decode(AgentInfo, entry.value, `$KV.${BUCKETS.agents}.${entry.key}`);
      if (info.agentId !== agentId) return refuse(`registered as ${info.agentId} under ${entry.key}`);
      const enrolled = this.#deps.publicKeyOf(agentId);
      if (enrolled !== info.publicKey) return refuse(`its public key ${info.publicKey} is not the enrolled one, ${enrolled ?? "none"}`);
      return info;
    } catch (error) {
      if (error instanceof CodecError) return refuse(error.message);
      throw error;
    }
  }

  /** A timer that comes much too late means that this process stood still, and perhaps the agent with it: it gets another TTL to be heard of. */
  #expire(agentId: string, ms: number): NodeJS.Timeout {
    const dueAt = Date.now() + ms;
    return setTimeout(() => {
      const known = this.#agents.get(agentId);
      if (known && Date.now() - dueAt > STOOD_STILL_MS) known.timer = this.#expire(agentId, AGENT_TTL_MS);
      else this.#drop(agentId, "left");
    }, ms).unref();
  }

  #drop(agentId: string, kind: "left" | "withdrawn"): void {
    const gone = this.#agents.get(agentId);
    if (!gone) return;
    clearTimeout(gone.timer);
    this.#agents.delete(agentId);
    this.#tell({ kind, agent: gone.info });
  }

  #tell(change: FleetChange): void {
    const { agentId, pid, pools, devices, state } = change.agent;
    this.#deps.log(`agent.${change.kind}`, { agentId, pid, pools, devices: devices.map((d) => d.id), state });
    for (const listener of [...this.#listeners]) listener(change);
  }
}

/** Devices of ready agents that carry all the labels; real ones before simulated ones. */
export function matching(agents: readonly AgentInfo[], labels: Readonly<Record<string, string>>): { agent: AgentInfo; device: Device }[] {
  return agents
    .filter((agent) => agent.state === "ready")
    .flatMap((agent) => agent.devices.map((device) => ({ agent, device })))
    .filter(({ device }) => missingLabels(device, labels).length === 0)
    .sort((a, b) => Number(a.device.simulated) - Number(b.device.simulated));
}

/** "key=value (it has other)" for each label that a device lacks. */
export function missingLabels(device: Device, labels: Readonly<Record<string, string>>): string[] {
  return Object.entries(labels)
    .filter(([key, value]) => device.labels[key] !== value)
    .map(([key, value]) => `${key}=${value} (it has ${device.labels[key] ?? "none"})`);
}
