import { Kvm, type KV } from "@nats-io/kv";
import type { NatsConnection } from "@nats-io/transport-node";
import { AgentInfo, Beat, BUCKETS, encode, subjects } from "@vibeserve/shared";

/** A third of the time after which an agent that is not heard of counts as gone, so that two lost beats mean nothing. */
const BEAT_MS = 5_000;
const DRAINED_MS = 2_000;

export interface RegistrationLog {
  failed(error: unknown): void;
}

/**
 * This agent's entry in the fleet's registry, `<agentId>.info`, and its beats. The entry is written when it opens, when it changes and when the connection came
 * back; a beat goes out every 5 s and whenever it is asked for. An agent that leaves takes its entry away.
 */
export class Registration {
  readonly #nc: NatsConnection;
  readonly #log: RegistrationLog;
  #info: AgentInfo;
  #bucket: KV | null = null;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<void> = Promise.resolve();
  #written = false;

  constructor(nc: NatsConnection, info: AgentInfo, log: RegistrationLog) {
    this.#nc = nc;
    this.#info = info;
    this.#log = log;
  }

  /** Why the coordinator gives this agent nothing, as its entry is now; null: it may. */
  get trouble(): string | null {
    if (!this.#written) return "its entry in the fleet's registry is not written yet, or was refused: see its log";
    return this.#info.state === "ready" ? null : `it is ${this.#info.state}`;
  }

  /** Registers now; a broker that does not answer is tried again with the next beat. */
  async open(): Promise<void> {
    this.#timer = setInterval(() => this.#beat(), BEAT_MS);
    this.#nc.subscribe(subjects.roll, { callback: (error) => (error ? this.#log.failed(error) : this.#beat()) });
    await this.write();
  }

  /** Writes the entry; one write at a time. Never rejects. */
  write(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#put());
    return this.#writing;
  }

  /** The device is not offered any more, until this agent starts anew and finds it. */
  async withoutDevice(deviceId: string): Promise<void> {
    this.#info = { ...this.#info, devices: this.#info.devices.filter((d) => d.id !== deviceId) };
    await this.write();
  }

  async drain(): Promise<void> {
    this.#info = { ...this.#info, state: "draining" };
    await this.write();
  }

  /** Takes the entry away; gives up after 2 s, since its beats end too. */
  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    const gone = this.#writing.then(() => this.#bucket?.delete(this.#key)).catch((error: unknown) => this.#log.failed(error));
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([gone, new Promise((resolve) => (timer = setTimeout(resolve, DRAINED_MS)))]);
    clearTimeout(timer);
  }

  #beat(): void {
    if (!this.#written) void this.write();
    if (this.#nc.isClosed()) return;
    const { agentId, startedAt } = this.#info;
    const subject = subjects.beat(agentId);
    this.#nc.publish(subject, encode(Beat, { v: 1, kind: "beat", agentId, startedAt }, subject));
  }

  get #key(): string {
    return `${this.#info.agentId}.info`;
  }

  async #put(): Promise<void> {
    try {
      this.#bucket ??= await new Kvm(this.#nc).open(BUCKETS.agents);
      await this.#bucket.put(this.#key, encode(AgentInfo, this.#info, `$KV.${BUCKETS.agents}.${this.#key}`));
      this.#written = true;
    } catch (error) {
      this.#bucket = null;
      this.#written = false;
      this.#log.failed(error);
    }
  }
}
