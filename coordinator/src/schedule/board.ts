import { covers, keyOfWhere, type Where } from "@vibeserve/shared";
import { Lane, type Dev, type Domain, type Limits, type Reservation, type Run } from "./lane.ts";
import type { SchedulableDevice, Slot } from "./model.ts";
import { endsAt, reservable } from "./place.ts";
import type { Entry, Share } from "./queue.ts";

interface Hold {
  where: Where;
  until: number;
  reason: string;
}

/** Of a hold that lasts until it is lifted, ms. */
export const FOR_EVER = Number.MAX_SAFE_INTEGER;

/** The devices, which of them are free, for whom they are kept, and where nothing may start now. It knows no policy. */
export class Board {
  readonly devices = new Map<string, Dev>();
  readonly lanes = new Map<string, Lane>();
  /** Runs by device id, also of devices that are not there now. */
  readonly held = new Map<string, Run>();
  /** Lanes in which something may have become possible since the last `next`. */
  readonly dirty = new Set<Lane>();
  readonly #limits: Limits;
  readonly #domains = new Map<string, Domain>();
  readonly #holds = new Map<string, Hold>();

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** Adds or replaces; a device that holds a job keeps it, also over an absence. The same again changes nothing. */
  put(device: SchedulableDevice): void {
    const known = this.devices.get(device.id)?.device;
    if (known && FIELDS.every((field) => known[field] === device[field])) return;
    this.remove(device.id);
    const lane = this.lane(device.pool, device.slot, device.simulated);
    const domain = this.#domain(device.domain);
    const run = this.held.get(device.id) ?? null;
    const dev: Dev = { device, lane, domain, run, reservation: null, free: false };
    this.devices.set(device.id, dev);
    domain.devices.add(dev);
    if (run) this.#occupy(run, domain);
    lane.devices++;
    const mine = lane.agents.get(device.agentId);
    if (mine) mine.add(dev);
    else lane.agents.set(device.agentId, new Set([dev]));
    this.#refresh(dev);
  }

  /** It gets no more work. What it holds stays held until `ended`. */
  remove(id: string): void {
    const dev = this.devices.get(id);
    if (!dev) return;
    if (dev.reservation) this.cancel(dev.reservation);
    dev.free = false;
    dev.lane.seat(dev);
    this.devices.delete(id);
    const { lane, domain } = dev;
    lane.devices--;
    const mine = lane.agents.get(dev.device.agentId);
    mine?.delete(dev);
    if (mine?.size === 0) lane.agents.delete(dev.device.agentId);
    domain.devices.delete(dev);
    this.#forget(domain);
  }

  /** Nothing new starts there until then; what runs goes on. A time that has passed, or 0, lifts it. */
  hold(where: Where, until: number, reason: string): void {
    const key = keyOfWhere(where);
    const known = this.#holds.get(key);
    // They are told every few seconds, and mostly nothing has changed.
    if (until > 0 ? known?.until === until && known.reason === reason : !known) return;
    this.#holds.delete(key);
    if (until > 0) this.#holds.set(key, { where, until, reason });
    this.#refreshAll(where);
  }

  /** When the first hold ends, ms; null: there is none. */
  wakeAt(): number | null {
    return this.#holds.size === 0 ? null : Math.min(...[...this.#holds.values()].map((h) => h.until));
  }

  /** Ends the holds whose time is over. */
  lift(now: number): void {
    for (const [key, hold] of this.#holds) {
      if (hold.until > now) continue;
      this.#holds.delete(key);
      this.#refreshAll(hold.where);
    }
  }

  /** The run takes the devices, known or not yet, and the domains. */
  occupy(run: Run, domains: readonly string[]): void {
    for (const id of domains) this.#occupy(run, this.#domain(id));
    for (const id of run.deviceIds) {
      this.held.set(id, run);
      const dev = this.devices.get(id);
      if (!dev) continue;
      dev.run = run;
      this.#occupy(run, dev.domain);
      this.#refresh(dev);
    }
  }

  /** The run is over: what it held and what it disturbed is free. */
  vacate(run: Run): void {
    const touched = new Set<Dev>();
    for (const id of run.deviceIds) {
      this.held.delete(id);
      const dev = this.devices.get(id);
      if (!dev) continue;
      dev.run = null;
      touched.add(dev);
    }
    for (const domain of run.domains) {
      domain.runs.delete(run);
      for (const dev of domain.devices) touched.add(dev);
      this.#forget(domain);
    }
    for (const dev of touched) this.#refresh(dev);
  }

  /** One gang a lane at a time: that of the highest priority, and none takes it from one that starves. */
  reserve(lane: Lane, entry: Entry, share: Share, now: number): void {
    if (entry.places.some((p) => p.share.lane.reservation?.entry === entry)) return;
    const priority = lane.starves(share.level, now) ? Infinity : share.level.priority;
    if (lane.reservation && lane.reservation.priority >= priority) return;
    const before = lane.reservation;
    const freeAt = (dev: Dev) => (this.blocked(dev) === null && !this.#keptElsewhere(dev, before) ? Math.max(now, endsAt(dev)) : Infinity);
    const devs = reservable(lane, entry.job, freeAt);
    // One that can have nothing here takes nothing from another.
    if (!devs) return;
    if (before) this.cancel(before);
    lane.reservation = { lane, entry, share, priority, devices: new Set(devs), free: new Set() };
    for (const dev of devs) dev.reservation = lane.reservation;
    for (const dev of new Set(devs.flatMap((d) => [...d.domain.devices]))) this.#refresh(dev);
  }

  /** The devices that were kept may be had again. */
  cancel(reservation: Reservation): void {
    reservation.lane.reservation = null;
    for (const dev of reservation.devices) dev.reservation = null;
    for (const dev of new Set([...reservation.devices].flatMap((d) => [d, ...d.domain.devices]))) {
      dev.free = false;
      this.#refresh(dev);
    }
  }

  /** Why nothing starts on the device, whatever it holds; null: something may. */
  blocked({ device }: Dev): string | null {
    if (device.state === "maintenance") return "is in maintenance";
    if (device.state !== "ready") return `is ${device.state}`;
    if (device.health === "quarantined") return "is quarantined";
    for (const hold of this.#holds.values())
      if (isOf(hold.where, device))
        return `starts nothing until ${hold.until === FOR_EVER ? "that is lifted" : new Date(hold.until).toISOString()}: ${hold.reason}`;
    return null;
  }

  lane(pool: string, slot: Slot, simulated: boolean): Lane {
    const key = `${slot} ${simulated} ${pool}`;
    let lane = this.lanes.get(key);
    if (!lane) {
      lane = new Lane(pool, slot, simulated, this.#limits);
      this.lanes.set(key, lane);
    }
    return lane;
  }

  /** Another gang than this device's own, and than that of `but`, waits for its domain. */
  #keptElsewhere(dev: Dev, but: Reservation | null = null): boolean {
    for (const { reservation } of dev.domain.devices)
      if (reservation && reservation !== dev.reservation && reservation !== but) return true;
    return false;
  }

  #refreshAll(where: Where): void {
    for (const dev of this.devices.values()) if (isOf(where, dev.device)) this.#refresh(dev);
  }

  /** Works out anew whether the device is free. */
  #refresh(dev: Dev): void {
    if (this.devices.get(dev.device.id) !== dev) return;
    const usable = this.blocked(dev) === null;
    if (!usable && dev.reservation) this.cancel(dev.reservation);
    dev.free = usable && !dev.run && dev.domain.runs.size === 0 && !this.#keptElsewhere(dev);
    dev.lane.seat(dev);
    if (dev.free) this.dirty.add(dev.lane);
  }

  #occupy(run: Run, domain: Domain): void {
    domain.runs.add(run);
    run.domains.add(domain);
    for (const dev of domain.devices) this.#refresh(dev);
  }

  #domain(id: string): Domain {
    let domain = this.#domains.get(id);
    if (!domain) {
      domain = { id, runs: new Set(), devices: new Set() };
      this.#domains.set(id, domain);
    }
    return domain;
  }

  #forget(domain: Domain): void {
    if (domain.devices.size === 0 && domain.runs.size === 0) this.#domains.delete(domain.id);
  }
}

const FIELDS = ["agentId", "pool", "slot", "domain", "state", "health", "simulated"] as const satisfies (keyof SchedulableDevice)[];

const isOf = (where: Where, { pool, agentId, id }: SchedulableDevice): boolean => covers(where, { pool, agentId, deviceId: id });
