import { JetStreamApiError, type JetStreamClient, type JetStreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { headers, type Msg, type NatsConnection } from "@nats-io/transport-node";
import {
  BUCKETS,
  CodecError,
  decode,
  encode,
  Lease,
  LeaseReply,
  LeaseRequest,
  LeaseRevoked,
  subjects,
  type AgentInfo,
  type Progress,
} from "@vibeserve/shared";
import { z } from "zod";
import { judge, staleness, type JobStanding, type LiveLease } from "./lease-table.ts";

/**
 * The only writer of bucket vs-leases.
 *   L1. One lease a device, one device a job attempt.
 *   L2. A lease's token is the bucket's stream sequence at which it was written, claimed with the expected last sequence: it rises with each
 *       grant, over restarts too, and no two granters could ever hand out the same number.
 *   L3. A lease ends when its job is answered, when its agent is silent for ttlMs or restarts, or at its deadline; whoever asked hears why.
 *   L4. Progress keeps a lease alive in memory only: a measurement must not be disturbed by syncs to disk.
 */
export interface GranterDeps {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
  agent: (agentId: string) => AgentInfo | null;
  standing: (jobId: string, attempt: number) => JobStanding;
  /** The lease ended without an answer: the attempt is over. */
  lost: (lease: Lease, why: string) => void;
  log: (event: string, facts: Record<string, unknown>) => void;
  /** Tests shorten it. */
  ttlMs?: number;
}

/** Agents report every 2 s; ten missed reports on a machine that is saturated on purpose still mean nothing, a minute would waste the budget. */
const TTL_MS = 20_000;
/** An agent stops a job at its deadline and then still has to report: only later than that is it taken for hung. */
const DEADLINE_GRACE_MS = 15_000;
/** A loaded event loop is late by tens of ms; later than this it did not run. */
const STOOD_STILL_MS = 1_000;
const WRONG_LAST_SEQUENCE = 10071;
const STREAM = `KV_${BUCKETS.leases}`;

/** What KV bucket `vs-leases` holds under a device id: the lease, and which life of the agent it was granted to. */
export const StoredLease = z.strictObject({ v: z.literal(1), kind: z.literal("lease.stored"), lease: Lease, agentStartedAt: z.int() });

/** stoodStillMs: how long this process itself did not run while the lease was live. */
type HeldLease = LiveLease & { timer: NodeJS.Timeout | null; stoodStillMs: number };

export class LeaseGranter implements AsyncDisposable {
  readonly #deps: GranterDeps;
  readonly #live = new Map<string, HeldLease>();
  #lastSeq = 0;
  /** Requests are judged and written one after the other. */
  #mailbox: Promise<void> = Promise.resolve();
  #unsubscribe: () => void = () => undefined;

  private constructor(deps: GranterDeps) {
    this.#deps = deps;
  }

  /** Takes over the leases of an earlier life; each gets a full ttl to be heard of. Call it when all campaigns are known. */
  static async open(deps: GranterDeps): Promise<LeaseGranter> {
    const granter = new LeaseGranter(deps);
    const bucket = await new Kvm(deps.js).open(BUCKETS.leases);
    for await (const deviceId of await bucket.keys()) {
      const entry = await bucket.get(deviceId);
      if (entry?.operation !== "PUT") continue;
      const { lease, agentStartedAt } = decode(StoredLease, entry.value, `$KV.${BUCKETS.leases}.${deviceId}`);
      granter.#hold({ lease, agentStartedAt, heardAt: Date.now() });
    }
    granter.#lastSeq = (await deps.jsm.streams.info(STREAM)).state.last_seq;
    for (const { lease } of granter.leases()) if (deps.standing(lease.jobId, lease.attempt).kind === "over") granter.release(lease);
    const subscription = deps.nc.subscribe(subjects.lease("*"), {
      callback: (error, message) => (error ? undefined : granter.#asked(message)),
    });
    granter.#unsubscribe = () => subscription.unsubscribe();
    return granter;
  }

  leases(): LiveLease[] {
    return [...this.#live.values()];
  }

  staleness(result: Parameters<typeof staleness>[1]): string | null {
    return staleness(this.#live, result);
  }

  /** The agent is at work: the lease lives another ttl. Another's or an old token changes nothing. */
  heard(progress: Progress): void {
    const held = [...this.#live.values()].find((l) => l.lease.jobId === progress.jobId);
    if (!held || held.lease.agentId !== progress.agentId || held.lease.token !== progress.leaseToken) return;
    held.heardAt = Date.now();
  }

  /** The job is answered or over. The device is free at once; an entry that could not be erased is recognised as over at the next start. */
  release(lease: Lease): void {
    const held = this.#live.get(lease.deviceId);
    if (held?.lease.token !== lease.token) return;
    clearTimeout(held.timer ?? undefined);
    this.#live.delete(lease.deviceId);
    this.#serially(() => this.#erase(lease));
  }

  /** Ends the job's lease, if it has one, and tells its agent to stop. */
  revoke(jobId: string, reason: string): void {
    for (const { lease } of this.leases())
      if (lease.jobId === jobId) {
        this.#tellRevoked(lease, reason);
        this.release(lease);
      }
  }

  /** The agent has left in good order and put its job back into the queue: the same attempt may be leased again, with a higher token. */
  agentWithdrew(agent: AgentInfo): void {
    for (const { lease, agentStartedAt } of this.leases())
      if (lease.agentId === agent.agentId && agentStartedAt === agent.startedAt) {
        this.#deps.log("lease.returned", { ...ids(lease), token: lease.token });
        this.release(lease);
      }
  }

  /** The agent was put out: whatever it holds is void, and what it still sends is evidence. */
  agentRevoked(agentId: string, reason: string): void {
    for (const { lease } of this.leases()) if (lease.agentId === agentId) this.#lose(lease, `agent ${agentId} was revoked: ${reason}`);
  }

  /** A new process has taken the agent's id: what its predecessor held is lost. */
  agentRestarted(agent: AgentInfo): void {
    for (const held of this.#live.values())
      if (held.lease.agentId === agent.agentId && held.agentStartedAt !== agent.startedAt)
        this.#lose(held.lease, `agent ${agent.agentId} was restarted`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unsubscribe();
    for (const { timer } of this.#live.values()) clearTimeout(timer ?? undefined);
    await this.#mailbox;
  }

  #asked(message: Msg): void {
    // Nobody would hear the answer, and a lease that nobody knows of blocks its device.
    if (message.reply === undefined || message.reply === "") return;
    this.#serially(async () => {
      const reply = await this.#answer(message);
      message.respond(encode(LeaseReply, reply, message.subject));
    });
  }

  async #answer(message: Msg): Promise<LeaseReply> {
    const refused = (reason: string, drop: boolean): LeaseReply => ({ v: 1, kind: "lease.refused", reason, drop });
    let request: LeaseRequest;
    try {
      request = decode(LeaseRequest, message.data, message.subject);
    } catch (error) {
      if (error instanceof CodecError) return refused(error.message, false);
      throw error;
    }
    if (message.subject !== subjects.lease(request.agentId)) return refused(`agent ${request.agentId} asked on ${message.subject}`, false);
    const agent = this.#deps.agent(request.agentId);
    const standing = this.#deps.standing(request.jobId, request.attempt);
    const verdict = judge(request, agent, standing, this.#live);
    switch (verdict.kind) {
      case "refuse":
        this.#deps.log("lease.refused", { ...ids(request), reason: verdict.reason, drop: verdict.drop });
        return refused(verdict.reason, verdict.drop);
      case "same":
        return { v: 1, kind: "lease.granted", lease: verdict.lease };
      case "grant": {
        if (!agent || standing.kind !== "open") throw new Error("granted without an agent or an open job");
        const lease = await this.#claim(request, standing.deadlineMs, agent.startedAt);
        // When the answer has left: the agent waits for it, and writing the log may wait for the disk.
        setImmediate(() => this.#deps.log("lease.granted", { ...ids(request), token: lease.token }));
        return { v: 1, kind: "lease.granted", lease };
      }
    }
  }

  /** L2. Retries only when its idea of the last sequence was old, as after a lost acknowledgement. */
  async #claim(request: LeaseRequest, deadlineMs: number, agentStartedAt: number): Promise<Lease> {
    for (let tries = 0; ; tries++) {
      const grantedAt = Date.now();
      const lease: Lease = {
        v: 1,
        kind: "lease",
        deviceId: request.deviceId,
        agentId: request.agentId,
        jobId: request.jobId,
        attempt: request.attempt,
        token: this.#lastSeq + 1,
        grantedAt,
        ttlMs: this.#deps.ttlMs ?? TTL_MS,
        deadline: grantedAt + deadlineMs,
      };
      const subject = `$KV.${BUCKETS.leases}.${lease.deviceId}`;
      const body = encode(StoredLease, { v: 1, kind: "lease.stored", lease, agentStartedAt }, subject);
      try {
        const ack = await this.#deps.js.publish(subject, body, { expect: { streamName: STREAM, lastSequence: this.#lastSeq } });
        this.#lastSeq = ack.seq;
        this.#hold({ lease, agentStartedAt, heardAt: grantedAt });
        return lease;
      } catch (error) {
        const moved = error instanceof JetStreamApiError && error.apiError().err_code === WRONG_LAST_SEQUENCE;
        if (!moved || tries >= 3) throw error;
        this.#lastSeq = (await this.#deps.jsm.streams.info(STREAM)).state.last_seq;
      }
    }
  }

  async #erase(lease: Lease): Promise<void> {
    // Granted again before this turn came: the entry is the new lease's.
    if (this.#live.has(lease.deviceId)) return;
    const h = headers();
    h.set("KV-Operation", "DEL");
    this.#lastSeq = (await this.#deps.js.publish(`$KV.${BUCKETS.leases}.${lease.deviceId}`, new Uint8Array(), { headers: h })).seq;
  }

  #hold(live: LiveLease): void {
    const held = { ...live, timer: null, stoodStillMs: 0 };
    this.#live.set(live.lease.deviceId, held);
    this.#arm(held);
  }

  /**
   * One timer a lease, armed for the earlier of silence and deadline; hearing of the agent only moves heardAt, and the timer looks again. A timer that comes
   * much too late means that this process stood still (a machine that slept), and perhaps the agent with it: that time counts for nothing.
   */
  #arm(held: HeldLease, dueAt?: number): void {
    const { lease } = held;
    const now = Date.now();
    const lateMs = dueAt === undefined ? 0 : now - dueAt;
    if (lateMs > STOOD_STILL_MS) {
      held.heardAt = now;
      held.stoodStillMs += lateMs;
      this.#deps.log("lease.stood-still", { ...ids(lease), lateMs });
    }
    const silentAt = held.heardAt + lease.ttlMs;
    const overdueAt = lease.deadline + held.stoodStillMs + DEADLINE_GRACE_MS;
    if (now >= overdueAt) this.#lose(lease, `no result within its deadline of ${Math.round((lease.deadline - lease.grantedAt) / 1000)} s`);
    else if (now >= silentAt) this.#lose(lease, `agent ${lease.agentId} was silent for ${Math.round((now - held.heardAt) / 1000)} s`);
    else {
      const next = Math.min(silentAt, overdueAt);
      held.timer = setTimeout(() => this.#arm(held, next), next - now).unref();
    }
  }

  #lose(lease: Lease, why: string): void {
    if (this.#live.get(lease.deviceId)?.lease.token !== lease.token) return;
    this.#deps.log("lease.lost", { ...ids(lease), token: lease.token, why });
    this.#tellRevoked(lease, why);
    this.release(lease);
    this.#deps.lost(lease, why);
  }

  #tellRevoked(lease: Lease, reason: string): void {
    const { agentId, deviceId, jobId, attempt, token } = lease;
    const subject = subjects.agent(agentId, "revoke");
    const message: LeaseRevoked = { v: 1, kind: "lease.revoked", agentId, deviceId, jobId, attempt, token, reason: reason.slice(0, 500) };
    this.#deps.nc.publish(subject, encode(LeaseRevoked, message, subject));
  }

  /** Work that fails is reported and forgotten: an agent that gets no answer asks again. */
  #serially(work: () => Promise<void>): void {
    this.#mailbox = this.#mailbox.then(work).catch((error: unknown) => {
      this.#deps.log("lease.failed", { why: error instanceof Error ? error.message : String(error) });
    });
  }
}

const ids = ({ agentId, deviceId, jobId, attempt }: LeaseRequest | Lease) => ({ agentId, deviceId, jobId, attempt });
