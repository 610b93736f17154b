import { Heap } from "./heap.ts";
import type { SchedulableDevice, SchedulableJob, Slot } from "./model.ts";
import { Level, type Entry, type Share } from "./queue.ts";

/** Numbers of the policy; each default with its reason. */
export interface Limits {
  /** A priority that has waited so long without a start gets the next one. Half an hour: three of the longest measurements. */
  starveMs: number;
  /** Of starts within one priority at most so many in a row are pulled forward for a deadline: the fourth goes by fair share, so nobody stands still. */
  maxHurried: number;
  /** A campaign is hurried when less than this times its known work is left: estimates are medians, and half of the jobs take longer. */
  hurryFactor: number;
  /**
   * A campaign that asked for nothing for a while is at most so much device-time behind the others when it comes back: its agent's turns cost it no share, and
   * it can't pile up more than two long measurements.
   */
  creditMs: number;
  /** Jobs looked at to fill a gap before a gang. A gap is worth a short look, not a walk through 10,000 jobs. */
  gapScan: number;
}
export const LIMITS: Limits = { starveMs: 1_800_000, maxHurried: 3, hurryFactor: 1.5, creditMs: 1_200_000, gapScan: 64 };

/** A job at work. */
export interface Run {
  job: SchedulableJob;
  at: number;
  expectedMs: number;
  /** Virtual time that its campaign paid at its start for each place, ms; and of which shares, how many places. */
  chargedMs: number;
  charged: ReadonlyMap<Share, number>;
  weight: number;
  share: Share | null;
  deviceIds: readonly string[];
  domains: Set<Domain>;
}

/** What disturbs one another. Runs that were there at a start may be several: what next() starts is one. */
export interface Domain {
  id: string;
  runs: Set<Run>;
  devices: Set<Dev>;
}

export interface Dev {
  device: SchedulableDevice;
  lane: Lane;
  domain: Domain;
  run: Run | null;
  reservation: Reservation | null;
  free: boolean;
}

/** Devices of one agent that are kept for a gang until all are free. */
export interface Reservation {
  lane: Lane;
  entry: Entry;
  share: Share;
  /** Its campaign's, or Infinity where that priority starves. */
  priority: number;
  devices: ReadonlySet<Dev>;
  free: Set<Dev>;
}

const byId = (a: Dev, b: Dev): boolean => a.device.id < b.device.id;

/** Devices that are alike for a job, and the jobs that wait for one of them. Builders of a pool are a lane of their own, and so is what is simulated. */
export class Lane {
  readonly pool: string;
  readonly slot: Slot;
  readonly simulated: boolean;
  readonly limits: Limits;
  readonly agents = new Map<string, Set<Dev>>();
  devices = 0;
  /** Free devices that nobody has reserved. */
  readonly good = new Heap<Dev>(byId);
  readonly suspect = new Heap<Dev>(byId);
  /** The same, by agent. */
  readonly free = new Map<string, Set<Dev>>();
  /** Highest priority first. */
  readonly levels: Level[] = [];
  waiting = 0;
  canaries = 0;
  running = 0;
  /** Device-time started here, ms: lanes that want the same machine take turns by it. */
  clockMs = 0;
  reservation: Reservation | null = null;

  constructor(pool: string, slot: Slot, simulated: boolean, limits: Limits) {
    this.pool = pool;
    this.slot = slot;
    this.simulated = simulated;
    this.limits = limits;
  }

  level(priority: number): Level {
    let level = this.levels.find((l) => l.priority === priority);
    if (!level) {
      level = new Level(priority);
      this.levels.push(level);
      this.levels.sort((a, b) => b.priority - a.priority);
    }
    return level;
  }

  get freeDevices(): number {
    return this.good.size + this.suspect.size + (this.reservation?.free.size ?? 0);
  }

  /** Levels in the order in which they are served: one that starves first. */
  order(now: number): readonly Level[] {
    if (this.levels.length < 2) return this.levels;
    const waiting = this.levels.filter((l) => l.byClock.size > 0);
    const starving = waiting.filter((l) => this.starves(l, now)).sort((a, b) => a.servedAt - b.servedAt || b.priority - a.priority);
    return [...starving, ...waiting.filter((l) => !starving.includes(l))];
  }

  starves(level: Level, now: number): boolean {
    return level.waiting > 0 && now - level.servedAt >= this.limits.starveMs;
  }

  /** Puts a device where it belongs after `free` or `reservation` has changed. */
  seat(dev: Dev): void {
    this.good.remove(dev);
    this.suspect.remove(dev);
    this.reservation?.free.delete(dev);
    const { agentId, health } = dev.device;
    const mine = this.free.get(agentId);
    mine?.delete(dev);
    if (mine?.size === 0) this.free.delete(agentId);
    if (!dev.free) return;
    if (dev.reservation) {
      dev.reservation.free.add(dev);
      return;
    }
    (health === "good" ? this.good : this.suspect).put(dev);
    const set = this.free.get(agentId);
    if (set) set.add(dev);
    else this.free.set(agentId, new Set([dev]));
  }
}
