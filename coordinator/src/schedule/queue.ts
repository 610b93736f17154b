import { Heap } from "./heap.ts";
import type { Lane } from "./lane.ts";
import type { SchedulableCampaign, SchedulableJob } from "./model.ts";

/** A job that waits, in one queue of each lane that could run it. */
export interface Entry {
  job: SchedulableJob;
  /** Order of arrival. */
  seq: number;
  waiting: boolean;
  places: { share: Share; fifo: Fifo }[];
}

/** Jobs that any device would take or refuse alike, oldest first. What has left is skipped when its turn comes. */
class Fifo {
  #entries: Entry[] = [];
  #head = 0;
  live = 0;

  push(entry: Entry): void {
    if (this.#entries.length > 2 * this.live + 64) this.#compact();
    this.#entries.push(entry);
    this.live++;
  }

  first(): Entry | undefined {
    for (; this.#head < this.#entries.length; this.#head++) {
      const entry = this.#entries[this.#head];
      if (entry?.waiting) return entry;
    }
    return undefined;
  }

  *[Symbol.iterator](): Generator<Entry> {
    for (let i = this.#head; i < this.#entries.length; i++) {
      const entry = this.#entries[i];
      if (entry?.waiting) yield entry;
    }
  }

  #compact(): void {
    this.#entries = [...this];
    this.#head = 0;
  }
}

/** What makes two jobs of a lane alike for every device. */
const shapeOf = ({ devices, canary, avoid, only }: SchedulableJob): string =>
  devices === 1 && !canary && avoid.length === 0 && only === undefined
    ? ""
    : JSON.stringify([devices, canary, [...avoid].sort(), only === undefined ? null : [...only].sort()]);

/** A campaign over all lanes. */
export interface Member {
  campaign: SchedulableCampaign;
  shares: Map<Lane, Share>;
  /** Devices and builders that it holds now. */
  held: number;
  /** Expected time of its jobs that wait or run, one after the other, ms. */
  outstandingMs: number;
  /** Removed, but it still holds devices. */
  over: boolean;
}

/** A campaign in one lane: what of it waits there, and how much of the lane's time it has had. */
export class Share {
  readonly member: Member;
  readonly lane: Lane;
  level: Level;
  /** Device-time divided by weight, of jobs that run as expected and of those that ended as it was; at most creditMs behind its level's when it comes back. */
  virtualMs = 0;
  /** Device-time had, of jobs that ended, ms. */
  usedMs = 0;
  waiting = 0;
  /** What its latest jobs took and what was expected of them, ms; older ones fade. A job is charged at its start by this experience. */
  tookMs = 0;
  guessedMs = 0;
  readonly queues = new Map<string, Fifo>();

  constructor(member: Member, lane: Lane, level: Level) {
    this.member = member;
    this.lane = lane;
    this.level = level;
    this.virtualMs = level.virtualMs;
  }

  /** From when on it must be hurried to end by its deadline; never, where it has none or that has passed. */
  hurryAt(now = -Infinity): number {
    const { campaign, outstandingMs } = this.member;
    const { deadlineAt, remainingMs } = campaign;
    if (deadlineAt === null || deadlineAt <= now) return Infinity;
    return deadlineAt - this.lane.limits.hurryFactor * (outstandingMs + (remainingMs ?? 0));
  }

  add(entry: Entry): void {
    const shape = shapeOf(entry.job);
    let fifo = this.queues.get(shape);
    if (!fifo) this.queues.set(shape, (fifo = new Fifo()));
    fifo.push(entry);
    entry.places.push({ share: this, fifo });
    if (this.waiting++ === 0) this.virtualMs = Math.max(this.virtualMs, this.level.virtualMs - this.lane.limits.creditMs);
  }

  /** The oldest of each shape, oldest first. */
  heads(): { shape: string; entry: Entry; fifo: Fifo }[] {
    const heads = [];
    for (const [shape, fifo] of this.queues) {
      const entry = fifo.first();
      if (entry) heads.push({ shape, entry, fifo });
      else this.queues.delete(shape);
    }
    return heads.length > 1 ? heads.sort((a, b) => a.entry.seq - b.entry.seq) : heads;
  }
}

/** The campaigns of one priority in a lane. */
export class Level {
  readonly priority: number;
  /** Where its clock stands: virtual time of the share that was served last. It never goes back. */
  virtualMs = 0;
  /** When it was last served, or began to wait. */
  servedAt = 0;
  waiting = 0;
  /** Starts in a row that went to a hurried campaign before its turn. */
  hurried = 0;
  /** Shares with a job that may start, the least served first. */
  readonly byClock = new Heap<Share>((a, b) => a.virtualMs < b.virtualMs || (a.virtualMs === b.virtualMs && idBefore(a, b)));
  /** Those of them that have a deadline, the nearest to missing it first. Keys change only with `seat`. */
  readonly byHurry = new Heap<Share>((a, b) => {
    const [x, y] = [a.hurryAt(), b.hurryAt()];
    return x < y || (x === y && idBefore(a, b));
  });

  constructor(priority: number) {
    this.priority = priority;
  }

  /** Puts the share where its keys say, or takes it out when none of its jobs may start. */
  seat(share: Share): void {
    const { campaign, held } = share.member;
    const may = share.waiting > 0 && held < (campaign.maxDevices ?? Infinity);
    if (may) this.byClock.put(share);
    else this.byClock.remove(share);
    if (may && campaign.deadlineAt !== null) this.byHurry.put(share);
    else this.byHurry.remove(share);
  }

  remove(share: Share): void {
    this.byClock.remove(share);
    this.byHurry.remove(share);
  }

  /** In order of service. A share may come twice. */
  *order(now: number, maxHurried: number): Generator<Share> {
    if (this.hurried < maxHurried)
      for (const share of this.byHurry.ordered()) {
        if (share.hurryAt() > now) break;
        if (share.hurryAt(now) <= now) yield share;
      }
    yield* this.byClock.ordered();
  }
}

const idBefore = (a: Share, b: Share): boolean => a.member.campaign.id < b.member.campaign.id;
