import { builderDevice, createRng, type Job, type JobSpec } from "@vibeserve/shared";
import type { Effect } from "../campaign/effect.ts";
import { SEED } from "../campaign/campaign.machine.ts";
import { purposeOf } from "../campaign/ledger.ts";
import { Heap } from "../schedule/heap.ts";
import type { Assignment, SchedulableDevice } from "../schedule/model.ts";
import { Scheduler } from "../schedule/scheduler.ts";
import { outcomeOf } from "./device-model.ts";
import { campaignsOf, type PlannedCampaign } from "./fleet-campaigns.ts";
import { measures, workerOf, type FleetFile, type FleetKind } from "./fleet-file.ts";
import { KindUses, type KindUse } from "./kind-use.ts";
import { bound, catalogOf, deviceOf, SimulatedCampaign, turnMs } from "./simulated-campaign.ts";
import { simulatedResult } from "./simulated-records.ts";

/** What a simulated fleet did. Times are ms from its start. */
export interface Simulated {
  simulated: true;
  fleet: string;
  seed: string;
  makespanMs: number;
  kinds: KindUse[];
  campaigns: CampaignUse[];
  /** Every attempt that took device-time, in order of its end. */
  works: Work[];
  agentLosses: number;
}
export interface CampaignUse extends Omit<PlannedCampaign, "on"> {
  kind: string;
  endMs: number;
  /** What it would have taken alone: its jobs and its agent's turns, one after the other. */
  chainMs: number;
  gain: number;
  usd: number;
  /** Times that it paused for someone to look at a device; here somebody does at once. */
  pauses: number;
}
export interface Work {
  campaign: string;
  /** Whose machine. */
  kind: string;
  startMs: number;
  endMs: number;
  devices: number;
}

interface Running {
  job: Job;
  assignment: Assignment;
  kind: FleetKind;
  at: number;
  lost: boolean;
}
interface Live {
  c: SimulatedCampaign;
  use: CampaignUse;
  avoid: Map<string, string[]>;
}
/** An agent that is silent for so long has lost what it ran, as in the product. */
const TTL_MS = 20_000;
const FOREVER_MS = 365 * 86_400_000;
/** Of the estimate of a job's time, kept at each new one. */
const FADE = 0.9;

/** A fleet in virtual time: the product's scheduler and campaigns, a seeded model of the devices. Same fleet and seed, same answer. */
export class FleetSimulation {
  readonly #fleet: FleetFile;
  readonly #seed: string;
  readonly #scheduler = new Scheduler();
  readonly #agenda = new Heap<{ at: number; seq: number; happen: () => void }>((a, b) => a.at < b.at || (a.at === b.at && a.seq < b.seq));
  readonly #live = new Map<string, Live>();
  readonly #running = new Map<string, Running>();
  readonly #jobs = new Map<string, Job>();
  readonly #uses: KindUses;
  readonly #expected = new Map<string, number>();
  readonly #works: Work[] = [];
  #now = 1;
  #seq = 0;
  #open = 0;
  #losses = 0;

  constructor(fleet: FleetFile, seed: string) {
    this.#fleet = fleet;
    this.#seed = seed;
    this.#uses = new KindUses(fleet.kinds, this.#now);
    for (const kind of fleet.kinds) for (let n = 0; n < kind.count / kind.perAgent; n++) this.#agent(kind, n);
    this.#campaigns();
  }

  run(): Simulated {
    for (let event = this.#agenda.first(); event && this.#open > 0; event = this.#agenda.first()) {
      this.#agenda.remove(event);
      if (event.at > FOREVER_MS) throw new Error(`fleet ${this.#fleet.name}: ${this.#open} campaigns have not ended in a year`);
      this.#uses.elapse(event.at);
      this.#now = event.at;
      event.happen();
      for (const assignment of this.#scheduler.next(this.#now)) this.#begin(assignment);
    }
    const campaigns = [...this.#live.values()].map(({ use }) => use);
    return {
      simulated: true,
      fleet: this.#fleet.name,
      seed: this.#seed,
      makespanMs: Math.max(...campaigns.map((c) => c.endMs)),
      kinds: this.#uses.sums,
      campaigns,
      works: this.#works,
      agentLosses: this.#losses,
    };
  }

  #at(at: number, happen: () => void): void {
    this.#agenda.put({ at, seq: this.#seq++, happen });
  }

  /** Joins now, and is lost and repaired from time to time. */
  #agent(kind: FleetKind, n: number): void {
    const agentId = `${kind.name}-m${n}`;
    const only = !measures(this.#fleet, kind);
    const of = (id: string, slot: SchedulableDevice["slot"], domain: string): SchedulableDevice => {
      return { id, agentId, pool: kind.name, slot, domain, state: "ready", health: "good", simulated: true };
    };
    const devices = Array.from({ length: kind.perAgent }, (_, i) => {
      const id = `${kind.name}-${n * kind.perAgent + i}`;
      return of(id, only ? "builder" : "device", kind.builtOn === undefined && !only ? agentId : id);
    });
    if (!only && kind.builtOn === undefined) devices.push(of(builderDevice(agentId), "builder", agentId));
    const { agentLossPerDay, repairS } = kind.faults ?? this.#fleet.faults;
    const random = createRng(`${this.#seed} losses of ${agentId}`);
    const join = () => {
      this.#uses.change(kind.name, { up: kind.perAgent });
      for (const device of devices) this.#scheduler.device(device);
      if (agentLossPerDay > 0) this.#at(this.#now + Math.round((random.exponential() * 86_400_000) / agentLossPerDay), lose);
    };
    const lose = () => {
      this.#uses.change(kind.name, { up: -kind.perAgent });
      this.#losses++;
      const ids = new Set(devices.map((d) => d.id));
      for (const id of ids) this.#scheduler.removeDevice(id);
      for (const run of this.#running.values()) if (run.assignment.devices.some((d) => ids.has(d.id))) this.#lose(run, agentId);
      this.#at(this.#now + Math.round(1_000 * repairS), join);
    };
    this.#at(1, join);
  }

  #campaigns(): void {
    const { skills } = this.#fleet;
    const catalog = catalogOf(skills);
    for (const { on, experiments, ...planned } of campaignsOf(this.#fleet)) {
      const { id, startMs } = planned;
      const c = new SimulatedCampaign(id, on, experiments, catalog, skills, this.#seed, startMs + 1);
      const sums = { chainMs: 0, experiments: 0, gain: 1, usd: 0, pauses: 0 };
      const live: Live = { c, use: { ...planned, kind: on.name, endMs: Infinity, ...sums }, avoid: new Map() };
      this.#live.set(id, live);
      this.#open++;
      this.#at(startMs + 1, () => this.#advance(live));
    }
  }

  /** Does what the campaign wants, until all that is left takes time. */
  #advance(live: Live): void {
    const { c } = live;
    for (let wanted = c.wants(); wanted.length > 0; wanted = c.wants()) for (const effect of wanted) this.#perform(live, effect);
    if (c.state.pausedAt && !c.state.ended) {
      live.use.pauses++;
      c.append({ type: "campaign.resumed", reason: "simulated: somebody looked at the device" }, this.#now);
      this.#advance(live);
    } else if (c.state.ended && live.use.endMs === Infinity) {
      live.use.endMs = this.#now - 1;
      live.use.experiments = c.state.experiments.length;
      live.use.gain = c.state.champions.at(-1)?.ratio.point ?? 1;
      this.#scheduler.removeCampaign(c.id);
      this.#open--;
    }
  }

  #perform(live: Live, effect: Effect): void {
    const { c } = live;
    switch (effect.type) {
      case "bind":
        this.#tell(live);
        c.append(bound(live.c.kind), this.#now);
        return;
      case "plan":
        c.append(c.plan(this.#now), this.#now);
        return;
      case "draft": {
        const { experimentId } = effect;
        if (experimentId === SEED) {
          c.append(c.draft(SEED), this.#now);
          return;
        }
        const ms = turnMs(this.#fleet, this.#seed, c.id, experimentId);
        live.use.chainMs += ms;
        live.use.usd += this.#fleet.turn.usd;
        this.#at(this.#now + ms, () => {
          c.append(c.draft(experimentId), this.#now);
          this.#advance(live);
        });
        return;
      }
      case "dispatch": {
        const pool = workerOf(live.c.kind, effect.job.spec.kind === "build");
        const job: Job = { ...effect.job, issuedAt: this.#now, pool };
        c.append({ type: "job.requested", job }, this.#now);
        this.#enqueue(live, job);
        return;
      }
      case "crown":
      case "append":
        c.append(effect.fact, this.#now);
        this.#tell(live);
        return;
      case "turn":
      case "prepare":
      case "conclude":
        throw new Error(`${effect.type}: a simulated campaign has no model`);
    }
  }

  #tell({ c, use }: Live): void {
    const { weight, priority, deadlineMs, chainMs } = use;
    const settled = c.state.experiments.filter((x) => x.settled).length;
    const { build, check, bench } = c.kind.jobs ?? { build: null, check: null, bench: null };
    const guessMs = 1_000 * (this.#fleet.turn.medianS + [build, check, bench].reduce((s, d) => s + (d?.medianS ?? 0), 0));
    const remainingMs = Math.max(0, c.state.target.budget.experiments - settled) * (settled > 0 ? chainMs / settled : guessMs);
    this.#scheduler.campaign({ id: c.id, weight, priority, deadlineAt: deadlineMs, remainingMs });
  }

  #enqueue(live: Live, job: Job): void {
    const build = job.spec.kind === "build";
    this.#jobs.set(job.id, job);
    this.#uses.change(job.pool, { waiting: 1 });
    this.#scheduler.enqueue(
      {
        id: job.id,
        attempt: job.attempt,
        campaign: job.campaign,
        kind: job.spec.kind,
        pools: [job.pool],
        slot: build ? "builder" : "device",
        devices: build ? 1 : live.use.devices,
        simulated: true,
        avoid: live.avoid.get(job.id) ?? [],
        expectedMs: this.#expected.get(typeOf(live.c.kind, job.spec)) ?? nominalMs(live.c.kind, job.spec),
        canary: false,
      },
      this.#now,
    );
  }

  #begin(assignment: Assignment): void {
    const job = this.#jobs.get(assignment.job.id);
    const live = this.#live.get(assignment.job.campaign);
    const device = assignment.devices[0];
    if (!job || !live?.c.kind.jobs || !device) throw new Error(`nobody asked for job ${assignment.job.id}`);
    const kind = this.#uses.kind(device.pool);
    this.#uses.change(kind.name, { waiting: -1, busy: assignment.devices.length });
    const faults = live.c.kind.faults ?? this.#fleet.faults;
    const { jobs, noise } = live.c.kind;
    const on = { device: deviceOf(live.c.kind, device.id), jobs, noise, faults, leaseToken: 1, sign: () => "" };
    const random = createRng(`${this.#seed} job ${job.id} ${job.attempt}`);
    const { ms, outcome } = outcomeOf(job, { ...on, rateOf: (stack) => live.c.rateOf(stack) }, random);
    const run: Running = { job, assignment, kind, at: this.#now, lost: false };
    this.#running.set(job.id, run);
    this.#at(this.#now + ms, () => {
      if (run.lost) return;
      this.#finish(run, live);
      const type = typeOf(live.c.kind, job.spec);
      if (outcome.status !== "failed") this.#expected.set(type, FADE * (this.#expected.get(type) ?? ms) + (1 - FADE) * ms);
      // Once, and where there is another: a job that avoids every device never ends.
      else if (outcome.failure.attribution === "device" && kind.count > 1 && assignment.devices.length === 1)
        live.avoid.set(job.id, [device.id]);
      this.#scheduler.ended(job.id, this.#now);
      const by = { agentId: "simulated", deviceId: device.id, token: 1 };
      const result = { ...simulatedResult(job, by, { startedAt: run.at, endedAt: this.#now }, outcome), sig: "" };
      live.c.append({ type: "job.settled", result, accepted: true, why: "current" }, this.#now);
      this.#advance(live);
    });
  }

  /** Its agent is gone: the time is lost at once, the coordinator knows of it after the lease's ttl. */
  #lose(run: Running, agentId: string): void {
    const live = this.#live.get(run.job.campaign);
    if (!live) return;
    run.lost = true;
    this.#finish(run, live);
    live.use.chainMs += TTL_MS;
    this.#at(this.#now + TTL_MS, () => {
      const { id: jobId, attempt } = run.job;
      this.#scheduler.ended(jobId, this.#now);
      live.c.append({ type: "job.expired", jobId, attempt, why: `agent ${agentId} was lost` }, this.#now);
      this.#advance(live);
    });
  }

  #finish({ job, assignment, kind, at }: Running, live: Live): void {
    const { devices } = assignment;
    this.#running.delete(job.id);
    this.#uses.change(kind.name, { busy: -devices.length });
    live.use.chainMs += this.#now - at;
    live.use.usd += (kind.usdPerHour * devices.length * (this.#now - at)) / 3_600_000;
    this.#works.push({ campaign: live.use.id, kind: kind.name, startMs: at - 1, endMs: this.#now - 1, devices: devices.length });
  }
}

/** Jobs of one type take alike. */
const typeOf = (kind: FleetKind, spec: JobSpec): string => [kind.name, spec.kind, purposeOf(spec)].join(" ");

function nominalMs({ jobs }: FleetKind, { kind }: JobSpec): number {
  const of = kind === "build" ? jobs?.build : kind === "check" ? jobs?.check : jobs?.bench;
  return 1_000 * (of?.medianS ?? 1);
}
