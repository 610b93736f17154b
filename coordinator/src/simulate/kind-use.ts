import type { FleetKind } from "./fleet-file.ts";

export interface KindUse {
  kind: FleetKind;
  busyMs: number;
  /** Device-time there was while at least one job waited for a device of this kind, and how much of it was idle though a waiting job could have had it. */
  backlogMs: number;
  idleMs: number;
  peak: number;
  peakAt: number;
}

/** Of a kind: devices that are there, devices at work, jobs that wait. */
interface Load {
  up: number;
  busy: number;
  waiting: number;
  sum: KindUse;
}

/** Adds up what each kind's devices did between the moments at which something changed. */
export class KindUses {
  readonly #loads: ReadonlyMap<string, Load>;
  #now: number;

  constructor(kinds: readonly FleetKind[], now: number) {
    this.#now = now;
    const sums = { busyMs: 0, backlogMs: 0, idleMs: 0, peak: 0, peakAt: 0 };
    this.#loads = new Map(kinds.map((kind) => [kind.name, { up: 0, busy: 0, waiting: 0, sum: { kind, ...sums } }]));
  }

  get sums(): KindUse[] {
    return [...this.#loads.values()].map(({ sum }) => sum);
  }

  kind(name: string): FleetKind {
    return this.#load(name).sum.kind;
  }

  /** Accounts for the time in which nothing happened. */
  elapse(to: number): void {
    const ms = to - this.#now;
    for (const { up, busy, waiting, sum } of this.#loads.values()) {
      sum.busyMs += busy * ms;
      if (waiting === 0) continue;
      sum.backlogMs += up * ms;
      // One job needs one device: that four hundred stand idle while it is on its way is not what it waits for.
      sum.idleMs += Math.min(waiting, Math.max(0, up - busy)) * ms;
    }
    this.#now = to;
  }

  change(name: string, by: Partial<Record<"up" | "busy" | "waiting", number>>): void {
    const load = this.#load(name);
    for (const what of ["up", "busy", "waiting"] as const) load[what] += by[what] ?? 0;
    if (load.waiting > load.sum.peak) Object.assign(load.sum, { peak: load.waiting, peakAt: this.#now });
  }

  #load(name: string): Load {
    const load = this.#loads.get(name);
    if (!load) throw new Error(`no kind ${name}`);
    return load;
  }
}
