import type { Where } from "@vibeserve/shared";
import { Board } from "./board.ts";
import { explain, idle } from "./explain.ts";
import { LIMITS, type Lane, type Limits, type Run } from "./lane.ts";
import type { Assignment, Demand, Explanation, SchedulableCampaign, SchedulableDevice, SchedulableJob } from "./model.ts";
import { choose, isComplete, served, underCap, type Pick } from "./place.ts";
import { snapshot, type Snapshot } from "./snapshot.ts";
import { Share, type Entry, type Member } from "./queue.ts";

/**
 * Who gets which device next. It does nothing itself: the caller tells it what happened and starts what `next` returns. No clock: `now` is in ms of
 * whatever clock the caller keeps. No randomness, no I/O.
 *   S1. At most one job on a device and in an exclusion domain, of what `next` starts.
 *   S2. A job is in at most one assignment; a higher attempt waits until the earlier one has ended.
 *   S3. Nothing is lost: what was enqueued and not withdrawn waits or runs.
 *   S4. A job gets only devices that suit it: ready, not on hold, good (or suspect, for a canary), of its pools and slot, simulated as it is, not avoided;
 *       a gang gets all of its devices, of one agent, or none.
 *   S5. After `next` no free device is left that a waiting job could take, but for those that are kept for a gang.
 *   S6. The higher priority goes first, except for S8.
 *   S7. Among equals, device-time divided by weight: the least served goes first. A job counts in each lane that could not use its machine meanwhile. Who is new starts level with the others, who comes back at most
 *       creditMs behind: time that one did not ask for is not piled up. One whose deadline would be missed goes first, but for one start in four.
 *   S8. A priority that waited starveMs without a start gets the next one in its lane that it can take. A gang whose turn it is gets devices reserved; from
 *       then on they take only single jobs that are expected to end before the gang could start.
 *   S9. The same calls give the same assignments.
 */
export class Scheduler {
  readonly #board: Board;
  readonly #members = new Map<string, Member>();
  readonly #waiting = new Map<string, Entry>();
  readonly #runs = new Map<string, Run>();
  /** Higher attempts of jobs that still run. */
  readonly #after = new Map<string, SchedulableJob>();
  #seq = 0;
  #clockMs = 0;

  constructor(limits: Partial<Limits> = {}) {
    this.#board = new Board({ ...LIMITS, ...limits });
  }

  /** Adds or replaces; a device that holds a job keeps it, also over an absence. The same again changes nothing. */
  device(device: SchedulableDevice): void {
    this.#board.put(device);
  }

  /** It gets no more work. What it holds stays held until `ended`. */
  removeDevice(id: string): void {
    this.#board.remove(id);
  }

  /** Nothing new starts there until then; what runs goes on. A time that has passed, or 0, lifts it. */
  hold(where: Where, until: number, reason = "on hold"): void {
    this.#board.hold(where, until, reason);
  }

  /** When `next` should be called again though nothing happens, ms; null: never. */
  wakeAt(): number | null {
    return this.#board.wakeAt();
  }

  /** Adds or replaces. A campaign that was never told has weight 1, priority 0 and no deadline. */
  campaign(campaign: SchedulableCampaign): void {
    const member = this.#member(campaign.id);
    const moved = member.campaign.priority !== campaign.priority;
    for (const share of member.shares.values()) share.level.remove(share);
    member.campaign = campaign;
    member.over = false;
    for (const share of member.shares.values()) {
      if (moved) {
        share.level.waiting -= share.waiting;
        share.level = share.lane.level(campaign.priority);
        share.level.waiting += share.waiting;
        share.virtualMs = share.level.virtualMs;
      }
      this.#seat(share);
    }
  }

  /** What of it waits is withdrawn; what runs goes on. */
  removeCampaign(id: string): void {
    for (const [jobId, job] of this.#after) if (job.campaign === id) this.#after.delete(jobId);
    const member = this.#members.get(id);
    if (!member) return;
    const fifos = [...member.shares.values()].flatMap((share) => [...share.queues.values()]);
    for (const entry of fifos.flatMap((fifo) => [...fifo])) if (entry.waiting) this.#leave(entry);
    if (member.held === 0) this.#members.delete(id);
    else member.over = true;
  }

  /** The job waits from now on. The same or a lower attempt again changes nothing; a higher one replaces it, at the end of its campaign's queue. */
  enqueue(job: SchedulableJob, now: number): void {
    const known = this.#waiting.get(job.id);
    if (known) {
      if (known.job.attempt >= job.attempt) return;
      this.#leave(known);
    }
    const run = this.#runs.get(job.id);
    if (run) {
      if (run.job.attempt < job.attempt && (this.#after.get(job.id)?.attempt ?? 0) < job.attempt) this.#after.set(job.id, job);
      return;
    }
    const entry: Entry = { job, seq: this.#seq++, waiting: true, places: [] };
    this.#waiting.set(job.id, entry);
    const member = this.#member(job.campaign);
    if (member.over) this.campaign(unknown(job.campaign));
    for (const pool of new Set(job.pools)) {
      const share = this.#share(member, this.#board.lane(pool, job.slot, job.simulated));
      const { lane, level } = share;
      if (lane.waiting++ === 0) lane.clockMs = Math.max(lane.clockMs, this.#clockMs);
      if (level.waiting++ === 0) level.servedAt = now;
      if (job.canary) lane.canaries++;
      share.add(entry);
    }
    this.#owes(member, job.expectedMs);
  }

  /** It does not wait any more: cancelled, paused, over. What runs goes on until `ended`. */
  withdraw(jobId: string): void {
    this.#after.delete(jobId);
    const entry = this.#waiting.get(jobId);
    if (entry) this.#leave(entry);
  }

  /**
   * A fact after a restart: the job is at work there, since `now`. The devices need not be known yet; the domains of those that may never come back can be
   * named. Throws where another job holds one of the devices.
   */
  running(job: SchedulableJob, deviceIds: readonly string[], now: number, domains: readonly string[] = []): void {
    if (this.#runs.has(job.id)) return;
    for (const id of deviceIds) {
      const other = this.#board.held.get(id);
      if (other) throw new Error(`device ${id} can't run job ${job.id}: it runs job ${other.job.id}`);
    }
    const entry = this.#waiting.get(job.id);
    if (entry) this.#leave(entry);
    const member = this.#member(job.campaign);
    const pool = deviceIds.map((id) => this.#board.devices.get(id)?.lane.pool).find((p) => p !== undefined) ?? job.pools[0];
    const share = pool === undefined ? null : this.#share(member, this.#board.lane(pool, job.slot, job.simulated));
    this.#hold(job, deviceIds, share, now, domains);
    if (entry && entry.job.attempt > job.attempt) this.#after.set(job.id, entry.job);
  }

  /** What is to be started now; the devices are taken from here on. */
  next(now: number): Assignment[] {
    this.#board.lift(now);
    const started: Assignment[] = [];
    for (let lane = this.#first(now); lane; lane = this.#first(now)) {
      const pick = this.#choose(lane, now);
      if (pick) started.push(this.#start(pick, now));
    }
    return started;
  }

  /** The job's attempt is over: its devices are free and its campaign is charged. An unknown job, or another attempt than the one named, changes nothing. */
  ended(jobId: string, now: number, attempt?: number): void {
    const run = this.#runs.get(jobId);
    if (!run || (attempt !== undefined && attempt !== run.job.attempt)) return;
    this.#runs.delete(jobId);
    this.#board.vacate(run);
    const { share, job } = run;
    const member = share?.member;
    if (member) {
      share.lane.running--;
      const tookMs = Math.max(0, now - run.at);
      const actualMs = tookMs * run.deviceIds.length;
      share.usedMs += actualMs;
      for (const [charged, places] of run.charged) charged.virtualMs += places * (tookMs / run.weight - run.chargedMs);
      share.tookMs = FADE * share.tookMs + actualMs;
      share.guessedMs = FADE * share.guessedMs + run.expectedMs * run.deviceIds.length;
      member.held -= run.deviceIds.length;
      this.#owes(member, -job.expectedMs);
      if (member.over && member.held === 0) this.#members.delete(member.campaign.id);
    }
    const again = this.#after.get(jobId);
    this.#after.delete(jobId);
    if (again) this.enqueue(again, now);
  }

  explain(jobId: string, now: number): Explanation {
    return explain({ board: this.#board, waiting: this.#waiting, runs: this.#runs, after: this.#after }, jobId, now);
  }

  /** Every device that runs nothing, with the reason. Ask after `next`. */
  idle(now: number): { id: string; reason: string }[] {
    return idle(this.#board, now);
  }

  /** Jobs that wait for this pool and like no other better, and devices of it that would take one now. */
  demand(pool: string): Demand {
    const waiting = { device: 0, builder: 0 };
    for (const { job } of this.#waiting.values()) if (job.pools[0] === pool) waiting[job.slot]++;
    const lanes = [...this.#board.lanes.values()].filter((lane) => lane.pool === pool && lane.slot === "device");
    return { waiting, free: lanes.reduce((free, lane) => free + lane.freeDevices, 0) };
  }

  /** Sizes, queues and shares. */
  snapshot(now: number): Snapshot {
    return snapshot(this.#board, this.#members.values(), this.#waiting.size, this.#runs.values(), now);
  }

  /** The lane that is served next: one in which a priority starves, then the highest priority, then as `precedes` says. */
  #first(now: number): Lane | null {
    let best: { lane: Lane; rank: number } | null = null;
    for (const lane of this.#board.dirty) {
      if (lane.waiting === 0 || lane.freeDevices === 0) {
        this.#board.dirty.delete(lane);
        continue;
      }
      const level = lane.order(now)[0];
      const rank = !level ? -Infinity : lane.levels.length > 1 && lane.starves(level, now) ? Infinity : level.priority;
      if (!best || rank > best.rank || (rank === best.rank && precedes(lane, best.lane, now))) best = { lane, rank };
    }
    return best?.lane ?? null;
  }

  #choose(lane: Lane, now: number, final = false): Pick | null {
    const kept = lane.reservation;
    if (kept && isComplete(kept) && !underCap(kept.share, kept.entry.job)) this.#board.cancel(kept);
    // A gang that gives up its place while this looks makes it dirty again: what was passed over may fit now.
    this.#board.dirty.delete(lane);
    const pick = choose(lane, now, (entry, share) => this.#board.reserve(lane, entry, share, now));
    if (!pick) return null;
    this.#board.dirty.add(lane);
    // A pool that the job likes better, and that has not had its say yet.
    for (const pool of final ? [] : pick.entry.job.pools) {
      if (pool === lane.pool) break;
      const better = this.#board.lane(pool, lane.slot, lane.simulated);
      if (this.#board.dirty.has(better)) return this.#choose(better, now, true);
    }
    return pick;
  }

  #start({ entry, share, devs }: Pick, now: number): Assignment {
    const { job } = entry;
    const { level, lane } = share;
    level.hurried = share !== level.byClock.first() && share.hurryAt(now) <= now ? level.hurried + 1 : 0;
    level.virtualMs = Math.max(level.virtualMs, share.virtualMs);
    level.servedAt = now;
    this.#clockMs = Math.max(this.#clockMs, lane.clockMs);
    this.#leave(entry);
    this.#hold(
      job,
      devs.map((d) => d.device.id),
      share,
      now,
    );
    return { job, devices: devs.map((d) => d.device) };
  }

  #hold(job: SchedulableJob, deviceIds: readonly string[], share: Share | null, now: number, domains: readonly string[] = []): void {
    const weight = share?.member.campaign.weight ?? 1;
    const expectedMs = Math.max(1, job.expectedMs);
    const experience = share && share.guessedMs > 0 ? share.tookMs / share.guessedMs : 1;
    const chargedMs = (experience * expectedMs) / weight;
    const run: Run = { job, at: now, expectedMs, chargedMs, charged: new Map(), weight, share, deviceIds, domains: new Set() };
    this.#runs.set(job.id, run);
    this.#board.occupy(run, domains);
    if (!share) return;
    run.charged = placesOf(run, share);
    for (const [charged, places] of run.charged) charged.virtualMs += places * chargedMs;
    share.lane.clockMs += expectedMs * deviceIds.length;
    share.lane.running++;
    share.member.held += deviceIds.length;
    this.#owes(share.member, job.expectedMs);
  }

  /** Takes a waiting job out of every queue. */
  #leave(entry: Entry): void {
    entry.waiting = false;
    this.#waiting.delete(entry.job.id);
    for (const { share, fifo } of entry.places) {
      fifo.live--;
      share.waiting--;
      share.level.waiting--;
      share.lane.waiting--;
      if (entry.job.canary) share.lane.canaries--;
      if (share.lane.reservation?.entry === entry) this.#board.cancel(share.lane.reservation);
    }
    const member = this.#members.get(entry.job.campaign);
    if (member) this.#owes(member, -entry.job.expectedMs);
  }

  #owes(member: Member, ms: number): void {
    member.outstandingMs += ms;
    for (const share of member.shares.values()) this.#seat(share);
  }

  #seat(share: Share): void {
    share.level.seat(share);
    if (share.waiting > 0) this.#board.dirty.add(share.lane);
  }

  #member(id: string): Member {
    let member = this.#members.get(id);
    if (!member) {
      member = { campaign: unknown(id), shares: new Map(), held: 0, outstandingMs: 0, over: false };
      this.#members.set(id, member);
    }
    return member;
  }

  #share(member: Member, lane: Lane): Share {
    let share = member.shares.get(lane);
    if (!share) {
      share = new Share(member, lane, lane.level(member.campaign.priority));
      member.shares.set(lane, share);
    }
    return share;
  }
}

/** What a run takes of its campaign's shares: its devices in its own lane; in each other lane one place for each domain that nothing there can use meanwhile. */
function placesOf(run: Run, share: Share): Map<Share, number> {
  const places = new Map([[share, run.deviceIds.length]]);
  for (const domain of run.domains)
    for (const lane of new Set([...domain.devices].map((dev) => dev.lane))) {
      const other = share.member.shares.get(lane);
      if (other && other !== share) places.set(other, (places.get(other) ?? 0) + 1);
    }
  return places;
}

/** Of two lanes: the one whose next campaign has had less, where one lane knows both campaigns (builds and measurements of a pool); else the one that has had less. */
function precedes(a: Lane, b: Lane, now: number): boolean {
  const [x] = served(a, now);
  const [y] = served(b, now);
  const [there, here] = [x?.member.shares.get(b), y?.member.shares.get(a)];
  if (x && y && x.member !== y.member) {
    if (there && (b.slot === "device" || !here)) return there.virtualMs < y.virtualMs;
    if (here) return x.virtualMs < here.virtualMs;
  }
  return a.clockMs < b.clockMs;
}

/** Of the experience with a campaign's jobs in a lane, kept at each job's end: ten jobs count. */
const FADE = 0.9;

/** What is assumed of a campaign that was never told. */
const unknown = (id: string): SchedulableCampaign => ({ id, weight: 1, priority: 0, deadlineAt: null });
