import { Kvm, type KV } from "@nats-io/kv";
import type { NatsConnection } from "@nats-io/transport-node";
import { AgentInfo, BUCKETS, encode } from "@vibeserve/shared";

/** A third of the bucket's TTL of 15 s, so that two lost refreshes still leave the agent registered. */
const REFRESH_MS = 5_000;
const DRAINED_MS = 2_000;

export interface RegistrationLog {
  failed(error: unknown): void;
}

/**
 * This agent's entry in the fleet's registry, `<agentId>.info`. Written when it opens and when it changes, refreshed within the bucket's TTL; an agent that
 * dies is forgotten by the TTL, one that leaves takes its entry away.
 */
export class Registration {
  readonly #nc: NatsConnection;
  readonly #log: RegistrationLog;
  #info: AgentInfo;
  #bucket: KV | null = null;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<void> = Promise.resolve();

  constructor(nc: NatsConnection, info: AgentInfo, log: RegistrationLog) {
    this.#nc = nc;
    this.#info = info;
    this.#log = log;
  }

  get info(): AgentInfo {
    return this.#info;
  }

  /** Registers now; a broker that does not answer is tried again at the next refresh. */
  async open(): Promise<void> {
    this.#timer = setInterval(() => void this.write(), REFRESH_MS);
    await this.write();
  }

  /** Writes the entry; one write at a time. Never rejects. */
  write(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#put());
    return this.#writing;
  }

  async drain(): Promise<void> {
    this.#info = { ...this.#info, state: "draining" };
    await this.write();
  }

  /** Takes the entry away; gives up after 2 s, since the TTL does the same. */
  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    const gone = this.#writing.then(() => this.#bucket?.delete(this.#key)).catch((error: unknown) => this.#log.failed(error));
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([gone, new Promise((resolve) => (timer = setTimeout(resolve, DRAINED_MS)))]);
    clearTimeout(timer);
  }

  get #key(): string {
    return `${this.#info.agentId}.info`;
  }

  async #put(): Promise<void> {
    try {
      this.#bucket ??= await new Kvm(this.#nc).open(BUCKETS.agents);
      await this.#bucket.put(this.#key, encode(AgentInfo, this.#info, `$KV.${BUCKETS.agents}.${this.#key}`));
    } catch (error) {
      this.#bucket = null;
      this.#log.failed(error);
    }
  }
}
