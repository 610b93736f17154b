import type { JetStreamClient, JetStreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { headers, type NatsConnection } from "@nats-io/transport-node";
import {
  Assignment,
  BUCKETS,
  CodecError,
  decode,
  encode,
  leaseOf,
  LeaseRevoked,
  subjects,
  type AgentInfo,
  type Job,
  type Lease,
  type Progress,
} from "@vibeserve/shared";
import { lastStored, storeVerdict } from "../bus/store-verdict.ts";
import type { LogBus } from "../log/event-log.ts";
import { delay } from "../process/backoff.ts";
import type { LostBy } from "./attribution.ts";
import { staleness, type JobStanding, type LiveLease } from "./lease-table.ts";

/**
 * The only writer of bucket vs-leases.
 *   L1. One lease a device, one device (or gang) a job attempt.
 *   L2. A lease's token is the stream sequence at which its assignment was stored, with the last sequence of that key as a condition: it rises with each
 *       grant, over restarts too, and of two coordinators only one can store.
 *   L3. A lease ends when its job is answered, when its agent is silent for ttlMs or restarts, or at its deadline; whoever asked hears why.
 *   L4. Progress keeps a lease alive in memory only: a measurement must not be disturbed by syncs to disk.
 *   L5. Nothing is written when a lease ends: an entry whose job is over in its campaign's log is no lease.
 */
export interface LeaseDeps {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
  standing: (job: { campaign: string; id: string; attempt: number }) => JobStanding;
  /** The lease ended without an answer: the attempt is over. */
  lost: (lease: LiveLease, why: string, by: LostBy) => void;
  /** It ended, however it did: its devices are free. returned: its agent left in good order, the same attempt may start elsewhere. */
  ended: (lease: LiveLease, how: "over" | "returned") => void;
  /** A grant may be the first write that meets a full disk. */
  store?: LogBus["store"] | undefined;
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
/** A synced write took < 50 ms on busy machines. */
const STORE_MS = 5_000;
const STORE_TRIES = 3;
const STREAM = `KV_${BUCKETS.leases}`;

/** stoodStillMs: how long this process itself did not run while the lease was live. */
type HeldLease = LiveLease & { timer: NodeJS.Timeout | null; stoodStillMs: number };

export class Leases implements AsyncDisposable {
  readonly #deps: LeaseDeps;
  readonly #byDevice = new Map<string, HeldLease>();
  readonly #byJob = new Map<string, HeldLease>();
  readonly #byAgent = new Map<string, Set<HeldLease>>();
  /** Sequence of the last entry of each key. */
  readonly #sequences = new Map<string, number>();
  /** Being stored: the agent may be heard before the broker's acknowledgement is. */
  readonly #granting = new Map<string, Promise<unknown>>();

  private constructor(deps: LeaseDeps) {
    this.#deps = deps;
  }

  /**
   * Takes over the leases of an earlier life; each gets a full ttl to be heard of, and one whose deadline passed meanwhile the grace after it: its result may wait in
   * the stream. Of campaigns whose log is not read yet, all are; of several assignments of one job the last is.
   */
  static async open(deps: LeaseDeps): Promise<Leases> {
    const leases = new Leases(deps);
    const bucket = await new Kvm(deps.js).open(BUCKETS.leases);
    const last = new Map<string, { assignment: Assignment; token: number }>();
    for await (const entry of await bucket.history({ key: "*.*" })) {
      const key = `$KV.${BUCKETS.leases}.${entry.key}`;
      leases.#sequences.set(key, entry.revision);
      if (entry.operation !== "PUT") continue;
      const assignment = leases.#read(entry.value, key);
      if (!assignment || deps.standing(assignment.job).kind === "over") continue;
      const { id } = assignment.job;
      if ((last.get(id)?.token ?? 0) < entry.revision) last.set(id, { assignment, token: entry.revision });
    }
    const now = Date.now();
    for (const { assignment, token } of last.values()) leases.#hold(assignment, token, now, Math.max(0, now - assignment.deadline));
    return leases;
  }

  list(): LiveLease[] {
    return [...this.#byJob.values()];
  }

  /** The campaign's log is read by now: what it says is over is no lease. */
  replayed(campaign: string): void {
    for (const { job } of this.list()) if (job.campaign === campaign && this.#deps.standing(job).kind === "over") this.release(job.id);
  }

  of(jobId: string): LiveLease | null {
    return this.#byJob.get(jobId) ?? null;
  }

  /** Stores the assignment. Throws where the broker does not say that it is on disk, or another coordinator has written. */
  async grant(agent: AgentInfo, devices: readonly string[], job: Job): Promise<LiveLease> {
    const granting = this.#grant(agent, devices, job);
    this.#granting.set(job.id, granting);
    try {
      return await granting;
    } finally {
      this.#granting.delete(job.id);
    }
  }

  /** Why a result must not count, or null if its lease is the current one (I3). */
  async staleness(result: Parameters<typeof staleness>[1]): Promise<string | null> {
    await this.#granting.get(result.jobId)?.catch(() => undefined);
    return staleness(this.#byDevice.get(result.deviceId) ?? null, result);
  }

  /** The agent is at work: the lease lives another ttl. One that works on what it does not hold is told to stop. */
  heard(progress: Progress): void {
    const held = this.#byJob.get(progress.jobId);
    if (held?.lease.agentId === progress.agentId && held.lease.token === progress.leaseToken) held.heardAt = Date.now();
    else if (!this.#granting.has(progress.jobId)) {
      const { agentId, jobId, attempt, leaseToken: token } = progress;
      this.#tellRevoked({ agentId, deviceId: held?.lease.deviceId ?? agentId, jobId, attempt, token }, "its lease is not the current one");
    }
  }

  /** The job is answered or over. */
  release(jobId: string): void {
    const held = this.#byJob.get(jobId);
    if (!held) return;
    this.#drop(held);
    this.#deps.ended(held, "over");
  }

  /** Ends the job's lease, if it has one, and tells its agent to stop. */
  revoke(jobId: string, reason: string): void {
    const held = this.#byJob.get(jobId);
    if (!held) return;
    this.#tellRevoked(held.lease, reason);
    this.release(jobId);
  }

  /** The agent has left in good order and works on nothing any more: the same attempt may be leased again, with a higher token. */
  agentWithdrew(agent: AgentInfo): void {
    for (const held of [...(this.#byAgent.get(agent.agentId) ?? [])])
      if (held.agentStartedAt === agent.startedAt) {
        this.#deps.log("lease.returned", { ...ids(held.lease), token: held.lease.token });
        this.#drop(held);
        this.#erase(held).catch((error: unknown) => this.#deps.log("lease.not-erased", { ...ids(held.lease), why: String(error) }));
        this.#deps.ended(held, "returned");
      }
  }

  /** The agent was put out: whatever it holds is void, and what it still sends is evidence. */
  agentRevoked(agentId: string, reason: string): void {
    for (const held of [...(this.#byAgent.get(agentId) ?? [])]) this.#lose(held, `agent ${agentId} was revoked: ${reason}`, "revoked");
  }

  /** A new process has taken the agent's id: what its predecessor held is lost. */
  agentRestarted(agent: AgentInfo): void {
    for (const held of [...(this.#byAgent.get(agent.agentId) ?? [])])
      if (held.agentStartedAt !== agent.startedAt) this.#lose(held, `agent ${agent.agentId} was restarted`, "restart");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { timer } of this.#byJob.values()) clearTimeout(timer ?? undefined);
    await Promise.allSettled(this.#granting.values());
  }

  async #grant(agent: AgentInfo, devices: readonly string[], job: Job): Promise<LiveLease> {
    const grantedAt = Date.now();
    const [first = ""] = devices;
    const assignment: Assignment = {
      v: 1,
      kind: "assignment",
      agentId: agent.agentId,
      agentStartedAt: agent.startedAt,
      devices: [...devices],
      job,
      grantedAt,
      ttlMs: this.#deps.ttlMs ?? TTL_MS,
      deadline: grantedAt + job.deadlineMs,
    };
    const token = await this.#store(subjects.assignment(agent.agentId, first), assignment);
    return this.#hold(assignment, token, grantedAt);
  }

  /** L2. An answer that was lost is neither a failure nor a second assignment: the key's last entry tells. */
  async #store(key: string, assignment: Assignment): Promise<number> {
    const bytes = encode(Assignment, assignment, key);
    for (let tries = 1; ; tries++)
      try {
        const expect = { streamName: STREAM, lastSubjectSequence: this.#sequences.get(key) ?? 0 };
        const { seq } = await this.#deps.js.publish(key, bytes, { expect, timeout: STORE_MS });
        this.#deps.store?.stored();
        this.#sequences.set(key, seq);
        return seq;
      } catch (error) {
        const verdict = storeVerdict(error);
        if (verdict === "unknown") await this.#deps.store?.stalled(error);
        if (tries >= STORE_TRIES || verdict === "refused") throw error;
        if (verdict === "unknown") await delay(100 * tries);
        const last = await lastStored(this.#deps.jsm, STREAM, key);
        if (last === "unknown") continue;
        this.#sequences.set(key, last?.seq ?? 0);
        if (!last || Buffer.compare(last.data, bytes) !== 0) continue;
        this.#deps.store?.stored();
        return last.seq;
      }
  }

  #read(value: Uint8Array, key: string): Assignment | null {
    try {
      return decode(Assignment, value, key);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      this.#deps.log("lease.unreadable", { key, why: error.message });
      return null;
    }
  }

  /** What was handed back is no lease for a later life of this process either: its attempt goes on elsewhere. */
  async #erase({ lease, devices }: HeldLease): Promise<void> {
    const key = subjects.assignment(lease.agentId, devices[0] ?? "");
    const erasing = headers();
    erasing.set("KV-Operation", "DEL");
    const expect = { streamName: STREAM, lastSubjectSequence: lease.token };
    const { seq } = await this.#deps.js.publish(key, new Uint8Array(), { headers: erasing, expect, timeout: STORE_MS });
    this.#sequences.set(key, seq);
  }

  #hold(assignment: Assignment, token: number, heardAt: number, stoodStillMs = 0): LiveLease {
    const { job, devices, agentStartedAt } = assignment;
    const held: HeldLease = { job, devices, agentStartedAt, heardAt, lease: leaseOf(assignment, token), timer: null, stoodStillMs };
    this.#byJob.set(job.id, held);
    for (const device of devices) this.#byDevice.set(device, held);
    const { agentId } = held.lease;
    this.#byAgent.set(agentId, (this.#byAgent.get(agentId) ?? new Set()).add(held));
    this.#arm(held);
    return held;
  }

  #drop(held: HeldLease): void {
    clearTimeout(held.timer ?? undefined);
    const { jobId } = held.lease;
    if (this.#byJob.get(jobId) === held) this.#byJob.delete(jobId);
    const { agentId } = held.lease;
    const mine = this.#byAgent.get(agentId);
    mine?.delete(held);
    if (mine?.size === 0) this.#byAgent.delete(agentId);
    for (const device of held.devices) if (this.#byDevice.get(device) === held) this.#byDevice.delete(device);
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
    if (now >= overdueAt)
      this.#lose(held, `no result within its deadline of ${Math.round((lease.deadline - lease.grantedAt) / 1000)} s`, "deadline");
    else if (now >= silentAt)
      this.#lose(held, `agent ${lease.agentId} was silent for ${Math.round((now - held.heardAt) / 1000)} s`, "silence");
    else {
      const next = Math.min(silentAt, overdueAt);
      held.timer = setTimeout(() => this.#arm(held, next), next - now).unref();
    }
  }

  #lose(held: HeldLease, why: string, by: LostBy): void {
    const { lease } = held;
    if (this.#byJob.get(lease.jobId)?.lease.token !== lease.token) return;
    this.#deps.log("lease.lost", { ...ids(lease), token: lease.token, why });
    this.#tellRevoked(lease, why);
    this.#drop(held);
    this.#deps.lost(held, why, by);
    this.#deps.ended(held, "over");
  }

  #tellRevoked(of: Pick<LeaseRevoked, "agentId" | "deviceId" | "jobId" | "attempt" | "token">, reason: string): void {
    const { agentId, deviceId, jobId, attempt, token } = of;
    const subject = subjects.agent(agentId, "revoke");
    const message: LeaseRevoked = { v: 1, kind: "lease.revoked", agentId, deviceId, jobId, attempt, token, reason: reason.slice(0, 500) };
    this.#deps.nc.publish(subject, encode(LeaseRevoked, message, subject));
  }
}

const ids = ({ agentId, deviceId, jobId, attempt }: Lease) => ({ agentId, deviceId, jobId, attempt });
