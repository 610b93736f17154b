import { isDeepStrictEqual } from "node:util";
import type { Job, Lease, Where } from "@vibeserve/shared";
import { delay } from "../process/backoff.ts";
import type { Assignment } from "../schedule/model.ts";
import type { Scheduler } from "../schedule/scheduler.ts";
import type { AgentRegistry, FleetChange } from "./agent-registry.ts";
import type { Claim } from "./dispatch.ts";
import { eligible, type Eligible } from "./builders.ts";
import { Durations } from "./durations.ts";
import type { JobStanding, LiveLease } from "./lease-table.ts";
import { CANARIES } from "./canaries.ts";
import { goodDevices } from "./health.ts";
import type { Health } from "./health.machine.ts";
import type { Leases } from "./leases.ts";
import { schedulableDevices, schedulableJob } from "./schedulable.ts";

/**
 * Between campaigns, scheduler and leases: what was asked for waits here, and goes out when the scheduler says which device it goes to.
 *   D1. What waits is in some campaign's log as requested and not over; nothing here is remembered that a restart would not be told again.
 *   D2. A job is with the scheduler, or being granted, or leased: never two of these.
 *   D3. Every end of a lease asks the scheduler what is next.
 */
export interface DispatcherDeps {
  scheduler: Scheduler;
  registry: AgentRegistry;
  standing: (job: { campaign: string; id: string; attempt: number }) => JobStanding;
  /** Of a device; absent: all are good. */
  health?: (deviceId: string) => Health;
  log: (event: string, facts: Record<string, unknown>) => void;
  now: () => number;
}

/** Between two tries to store an assignment; each of them has tried for seconds already. */
const RETRY_MS = 1_000;

interface Offered {
  job: Job;
  simulated: boolean;
  /** Devices that failed it: it goes to others, while there are any. */
  avoid: readonly string[];
  /** Those of them that it was last told to the scheduler with. */
  avoided: readonly string[];
  canaryOf: string | null;
  /** Where the scheduler was last told that it may go. */
  where: Eligible | null;
}

/** For benches and tests: no campaign stands behind it. */
export const unclaimed = (simulated: boolean): Claim => ({ simulated, weight: 1, priority: 0, deadlineAt: null });

export class Dispatcher implements AsyncDisposable {
  readonly #deps: DispatcherDeps;
  readonly #leases: Leases;
  readonly #durations = new Durations();
  /** All that was offered and is not over: with the scheduler, aside, being granted or leased. */
  readonly #offered = new Map<string, Offered>();
  /** Waiting, but of a paused campaign: the scheduler does not know of them. */
  readonly #aside = new Set<string>();
  readonly #granting = new Set<Promise<void>>();
  /** Those that the scheduler knows the claims of. */
  readonly #campaigns = new Set<string>();
  readonly #devices = new Map<string, readonly string[]>();
  readonly #stop = new AbortController();
  readonly #forget: () => void;
  /** When the scheduler was last asked what is next, ms; 0: never. */
  passedAt = 0;
  #pumping = false;
  #looking = false;

  /** `leases` are those that live already; their ends must come to `ended`. */
  constructor(deps: DispatcherDeps, leases: Leases) {
    this.#deps = deps;
    this.#leases = leases;
    const { scheduler, registry } = deps;
    for (const { job, devices } of leases.list()) {
      const canaryOf = job.campaign === CANARIES ? job.experiment : null;
      const where = this.#where({ job, canaryOf });
      scheduler.running(this.#view({ job, simulated: false, avoided: [], canaryOf }, where), devices, deps.now());
    }
    for (const agent of registry.list()) this.#changed({ kind: "joined", agent });
    this.#forget = registry.onChange((change) => this.#changed(change));
  }

  /** The job may go out; it is in its campaign's log. One that is on its way or leased already is left alone. */
  offer(job: Job, { simulated, ...claim }: Claim, avoid: readonly string[] = [], canaryOf: string | null = null): void {
    const known = this.#offered.get(job.id)?.job;
    if (known && known.attempt >= job.attempt) return;
    this.#offered.set(job.id, { job, simulated, avoid, avoided: [], canaryOf, where: null });
    if (!this.#campaigns.has(job.campaign)) this.#deps.scheduler.campaign({ id: job.campaign, ...claim });
    this.#campaigns.add(job.campaign);
    if (this.#leases.of(job.id)?.job.attempt !== job.attempt) this.#enqueue(job.id);
  }

  /** No attempt of it is wanted any more: whoever works on it may stop. */
  over(jobId: string, reason: string): void {
    this.#withdraw(jobId);
    this.#leases.revoke(jobId, reason);
  }

  /** What waits of a paused campaign waits outside; what runs goes on. */
  hold(campaign: string): void {
    for (const { job } of this.#offered.values())
      if (job.campaign === campaign && !this.#leases.of(job.id)) {
        this.#aside.add(job.id);
        this.#deps.scheduler.withdraw(job.id);
      }
  }

  resume(campaign: string): void {
    for (const { job } of [...this.#offered.values()]) if (job.campaign === campaign && this.#aside.delete(job.id)) this.#enqueue(job.id);
  }

  /** The campaign has ended: nothing of it waits, and it counts among no equals. */
  forget(campaign: string): void {
    if (this.#campaigns.delete(campaign)) this.#deps.scheduler.removeCampaign(campaign);
  }

  /** Nothing new on these devices until then; 0: lifted. */
  keepFree(where: Where, until: number, reason: string): void {
    this.#deps.scheduler.hold(where, until, reason);
    this.#pump();
  }

  /** The health of one of its devices has changed. */
  healthChanged(agentId: string): void {
    const agent = this.#deps.registry.get(agentId);
    if (agent) this.#changed({ kind: "changed", agent });
  }

  /** A lease has ended. */
  ended({ job }: LiveLease, how: "over" | "returned"): void {
    this.#deps.scheduler.ended(job.id, this.#deps.now(), job.attempt);
    if (how === "returned") this.#enqueue(job.id);
    else if (this.#offered.get(job.id)?.job.attempt === job.attempt) this.#offered.delete(job.id);
    this.#pump();
  }

  /** What waits to be given out; not what waits for its paused campaign. */
  *waiting(): Generator<Readonly<Offered>> {
    for (const [id, offered] of this.#offered) if (!this.#aside.has(id) && !this.#leases.of(id)) yield offered;
  }

  /** How long an agent worked on it. */
  worked(job: Job, ms: number): void {
    this.#durations.seen(job.pool, job.spec.kind, ms);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#forget();
    this.#stop.abort();
    await Promise.allSettled(this.#granting);
  }

  #view({ job, simulated, avoided, canaryOf }: Pick<Offered, "job" | "simulated" | "avoided" | "canaryOf">, where: Eligible) {
    return schedulableJob(job, simulated, this.#durations.of(job.pool, job.spec.kind), where, avoided, canaryOf !== null);
  }

  #where({ job, canaryOf }: Pick<Offered, "job" | "canaryOf">): Eligible {
    return canaryOf === null ? eligible(job, this.#deps.registry.list()) : { pools: [job.pool], only: [canaryOf] };
  }

  /** Once for all that change in a tick: after a restart thousands of agents join at once. */
  #lookSoon(): void {
    if (this.#looking) return;
    this.#looking = true;
    setImmediate(() => {
      this.#looking = false;
      if (this.#stop.signal.aborted) return;
      this.#lookAgain();
    });
  }

  /** Who is there has changed: another may build for others now, and what waits and avoids devices may have others to go to, or none any more. */
  #lookAgain(): void {
    for (const offered of [...this.waiting()]) {
      const { id } = offered.job;
      const moved = offered.job.spec.kind === "build" && !isDeepStrictEqual(this.#where(offered), offered.where);
      if (!moved && this.#avoidable(offered).length === offered.avoided.length) continue;
      this.#deps.scheduler.withdraw(id);
      this.#enqueue(id);
    }
  }

  /** A job that would avoid so many good devices of its pool that no agent has enough left avoids none: it would wait for ever, and its campaign's caps end it. */
  #avoidable({ job, simulated, avoid }: Readonly<Offered>): readonly string[] {
    if (avoid.length === 0) return avoid;
    const good = goodDevices(this.#deps.registry.list(), job.pool, simulated, this.#health, avoid);
    return good.some((ids) => ids.length >= (job.deviceCount ?? 1)) ? avoid : [];
  }

  readonly #health = (deviceId: string): Health => this.#deps.health?.(deviceId) ?? "good";

  #enqueue(jobId: string): void {
    const offered = this.#offered.get(jobId);
    if (!offered) return;
    const standing = this.#deps.standing(offered.job);
    if (standing.kind === "over") this.#withdraw(jobId);
    else if (standing.kind === "held") this.#aside.add(jobId);
    else {
      offered.avoided = this.#avoidable(offered);
      const where = (offered.where = this.#where(offered));
      this.#deps.scheduler.enqueue(this.#view(offered, where), this.#deps.now());
      this.#pump();
    }
  }

  #withdraw(jobId: string): void {
    this.#offered.delete(jobId);
    this.#aside.delete(jobId);
    this.#deps.scheduler.withdraw(jobId);
  }

  #changed({ kind, agent }: FleetChange): void {
    const before = this.#devices.get(agent.agentId) ?? [];
    const { scheduler } = this.#deps;
    if (kind === "left" || kind === "withdrawn") {
      this.#devices.delete(agent.agentId);
      for (const id of before) scheduler.removeDevice(id);
      // After its devices are gone, so that nothing of it goes out to it again.
      if (kind === "withdrawn") this.#leases.agentWithdrew(agent);
      this.#lookSoon();
      return;
    }
    if (kind === "restarted" || kind === "joined") this.#leases.agentRestarted(agent);
    const devices = schedulableDevices(agent, this.#health);
    this.#devices.set(
      agent.agentId,
      devices.map((d) => d.id),
    );
    for (const id of before) if (!devices.some((d) => d.id === id)) scheduler.removeDevice(id);
    for (const device of devices) scheduler.device(device);
    this.#lookSoon();
    this.#pump();
  }

  /** Once a tick: many results that come together are one look. */
  #pump(): void {
    if (this.#pumping || this.#stop.signal.aborted) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      this.passedAt = this.#deps.now();
      for (const assignment of this.#deps.scheduler.next(this.passedAt)) {
        const granting = this.#assign(assignment).finally(() => this.#granting.delete(granting));
        this.#granting.add(granting);
      }
    });
  }

  async #assign({ job: { id }, devices }: Assignment): Promise<void> {
    const { scheduler, registry, standing, now, log } = this.#deps;
    const offered = this.#offered.get(id);
    const agent = registry.get(devices[0]?.agentId ?? "");
    if (offered && agent && standing(offered.job).kind === "open")
      try {
        const { lease } = await this.#leases.grant(
          agent,
          devices.map(({ id }) => id),
          offered.job,
        );
        // When it has left: writing the log may wait for the disk.
        setImmediate(() => log("lease.granted", { ...of(lease), token: lease.token }));
        const after = standing(offered.job);
        if (after.kind === "over") this.#leases.revoke(id, after.reason);
        return;
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        log("lease.failed", { agentId: agent.agentId, jobId: id, attempt: offered.job.attempt, why });
        await delay(RETRY_MS * (0.75 + Math.random() / 2), this.#stop.signal);
      }
    scheduler.ended(id, now());
    if (this.#offered.get(id) === offered) this.#enqueue(id);
    this.#pump();
  }
}

const of = ({ agentId, deviceId, jobId, attempt }: Lease) => ({ agentId, deviceId, jobId, attempt });
