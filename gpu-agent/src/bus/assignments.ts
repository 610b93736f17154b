import { jetstreamManager, type JetStreamManager } from "@nats-io/jetstream";
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { Assignment, BUCKETS, CodecError, decode, leaseOf, subjects, type Job, type Lease } from "@vibeserve/shared";

/** Work that was given to this life of this agent. */
export interface Assigned {
  readonly job: Job;
  readonly lease: Lease;
  /** Every device of it; more than one for a gang. */
  readonly devices: readonly string[];
}

export interface AssignmentsDeps {
  readonly nc: NatsConnection;
  readonly agentId: string;
  /** `startedAt` of this life: what was given to another one is left alone. */
  readonly startedAt: number;
  /** Everything of this agent that can be given work: its devices and its builder. */
  readonly devices: readonly string[];
  take(assigned: Assigned): void;
  /** Something under this agent's keys can't be read. */
  refused(why: string): void;
}

/** The header in which the broker says where a repeated message is stored (nats.io, JetStream republish). */
const SEQUENCE = "Nats-Sequence";

/**
 * Listens for assignments, and reads what stands under this agent's keys whenever it connects, since what was told meanwhile is told once. An assignment is
 * handed on once, by its token.
 */
export class Assignments {
  readonly #deps: AssignmentsDeps;
  readonly #taken = new Map<string, number>();
  #jsm: JetStreamManager | null = null;
  #subscription: Subscription | null = null;

  constructor(deps: AssignmentsDeps) {
    this.#deps = deps;
  }

  /** Listens from now on; what stands already comes with `look`. */
  open(): void {
    this.#subscription = this.#deps.nc.subscribe(subjects.assigned(this.#deps.agentId, "*"), {
      callback: (error, message) => (error ? this.#deps.refused(error.message) : this.#repeated(message)),
    });
  }

  /** Reads all keys. Rejects where the broker does not answer. */
  async look(): Promise<void> {
    this.#jsm ??= await jetstreamManager(this.#deps.nc, { checkAPI: false });
    for (const device of this.#deps.devices) {
      const key = subjects.assignment(this.#deps.agentId, device);
      const stored = await this.#jsm.direct.getMessage(`KV_${BUCKETS.leases}`, { last_by_subj: key });
      if (stored) this.#read(stored.data, stored.seq, key);
    }
  }

  close(): void {
    this.#subscription?.unsubscribe();
  }

  #repeated(message: Msg): void {
    const token = Number(message.headers?.get(SEQUENCE));
    if (Number.isSafeInteger(token) && token > 0) this.#read(message.data, token, message.subject);
    else this.#deps.refused(`${message.subject}: no sequence`);
  }

  #read(data: Uint8Array, token: number, subject: string): void {
    // Erased: what was handed back.
    if (data.length === 0) return;
    let assignment: Assignment;
    try {
      assignment = decode(Assignment, data, subject);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      this.#deps.refused(error.message);
      return;
    }
    const { agentId, startedAt } = this.#deps;
    if (assignment.agentId !== agentId || assignment.agentStartedAt !== startedAt) return;
    const lease = leaseOf(assignment, token);
    if ((this.#taken.get(lease.deviceId) ?? 0) >= token) return;
    this.#taken.set(lease.deviceId, token);
    this.#deps.take({ job: assignment.job, lease, devices: assignment.devices });
  }
}
