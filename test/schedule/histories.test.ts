import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Assignment, SchedulableDevice, SchedulableJob } from "../../coordinator/src/schedule/model.ts";
import { Scheduler } from "../../coordinator/src/schedule/scheduler.ts";

/** Random histories: joins, losses, duplicates, reorderings, restarts. What the scheduler may do is worked out here again, the plain way. */

const POOLS = ["p", "q"];
const deviceOf = (n: number, change: Partial<SchedulableDevice> = {}): SchedulableDevice => ({
  id: `d${n}`,
  agentId: `a${Math.floor(n / 3)}`,
  pool: POOLS[Math.floor(n / 3) % 2] ?? "p",
  slot: n % 7 === 6 ? "builder" : "device",
  domain: n < 4 ? `m${Math.floor(n / 2)}` : `d${n}`,
  state: "ready",
  health: "good",
  simulated: true,
  ...change,
});

const anyDevice = fc
  .record({
    n: fc.nat(9),
    state: fc.constantFrom(...Array<"ready">(9).fill("ready"), "draining" as const, "maintenance" as const),
    health: fc.constantFrom(...Array<"good">(9).fill("good"), "suspect" as const, "quarantined" as const),
    simulated: fc.constantFrom(...Array<boolean>(9).fill(true), false),
  })
  .map(({ n, ...change }) => deviceOf(n, change));

const anyJob = fc.record({
  id: fc.nat(11).map((n) => `j${n}`),
  attempt: fc.constantFrom(1, 1, 2, 3),
  campaign: fc.constantFrom("x", "y", "z"),
  kind: fc.constant("bench" as const),
  pools: fc.constantFrom(["p"], ["q"], ["p", "q"], ["q", "p"]),
  slot: fc.constantFrom("device" as const, "device" as const, "device" as const, "builder" as const),
  devices: fc.constantFrom(1, 1, 1, 2, 3),
  simulated: fc.constantFrom(...Array<boolean>(9).fill(true), false),
  avoid: fc.constantFrom([], [], [], ["d0"], ["d0", "d3"]),
  expectedMs: fc.integer({ min: 0, max: 50 }),
  canary: fc.constantFrom(false, false, false, true),
});

type Op =
  | { op: "device"; device: SchedulableDevice }
  | { op: "lost"; id: string }
  | { op: "enqueue"; job: SchedulableJob }
  | { op: "ended" | "withdraw"; id: string }
  | { op: "hold"; where: { pool?: string; deviceId?: string }; ms: number }
  | { op: "campaign"; id: string; priority: number; maxDevices: number; weight: number; deadlineMs: number | null }
  | { op: "gone"; id: string }
  | { op: "restart"; devicesFirst: boolean }
  | { op: "wait"; ms: number };

const jobIds = fc.nat(11).map((n) => `j${n}`);
const anyOp: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: anyDevice.map((device) => ({ op: "device" as const, device })) },
  { weight: 1, arbitrary: fc.nat(9).map((n) => ({ op: "lost" as const, id: `d${n}` })) },
  { weight: 9, arbitrary: anyJob.map((job) => ({ op: "enqueue" as const, job })) },
  { weight: 6, arbitrary: jobIds.map((id) => ({ op: "ended" as const, id })) },
  { weight: 1, arbitrary: jobIds.map((id) => ({ op: "withdraw" as const, id })) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant("hold" as const),
      where: fc.constantFrom({ pool: "p" }, { deviceId: "d1" }, {}),
      ms: fc.constantFrom(0, 30, 100),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant("campaign" as const),
      id: fc.constantFrom("x", "y", "z"),
      priority: fc.nat(2),
      maxDevices: fc.constantFrom(0, 1, 3, 100),
      weight: fc.constantFrom(0.5, 1, 4),
      deadlineMs: fc.constantFrom(null, 40, 400),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("gone" as const), id: fc.constantFrom("x", "y", "z") }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("restart" as const), devicesFirst: fc.boolean() }) },
  { weight: 4, arbitrary: fc.nat(60).map((ms) => ({ op: "wait" as const, ms })) },
);

/** Most begin with a fleet that is whole. */
const histories = fc
  .tuple(fc.constantFrom(0, 4, 10, 10), fc.array(anyOp, { minLength: 10, maxLength: 60, size: "max" }))
  .map(([joined, ops]): Op[] => [...Array.from({ length: joined }, (_, n) => ({ op: "device" as const, device: deviceOf(n) })), ...ops]);

/** What is known to whoever keeps the books beside the scheduler. */
class Books {
  scheduler = new Scheduler({ starveMs: 100 });
  readonly devices = new Map<string, SchedulableDevice>();
  readonly waiting = new Map<string, SchedulableJob>();
  readonly running = new Map<string, { job: SchedulableJob; devices: readonly SchedulableDevice[] }>();
  readonly after = new Map<string, SchedulableJob>();
  readonly campaigns = new Map<string, { priority: number; maxDevices: number; weight: number; deadlineAt: number | null }>();
  readonly holds = new Map<string, { pool?: string; deviceId?: string; until: number }>();
  readonly started: string[] = [];
  now = 0;

  perform(op: Op): void {
    const { scheduler, now } = this;
    switch (op.op) {
      case "device":
        this.devices.set(op.device.id, op.device);
        scheduler.device(op.device);
        return;
      case "lost":
        this.devices.delete(op.id);
        scheduler.removeDevice(op.id);
        return;
      case "enqueue": {
        const { job } = op;
        const run = this.running.get(job.id);
        const into = run ? this.after : this.waiting;
        if (job.attempt > (run?.job.attempt ?? 0) && job.attempt > (into.get(job.id)?.attempt ?? 0)) into.set(job.id, job);
        scheduler.enqueue(job, now);
        return;
      }
      case "ended": {
        if (this.running.delete(op.id)) {
          const next = this.after.get(op.id);
          if (next) this.waiting.set(op.id, next);
          this.after.delete(op.id);
        }
        scheduler.ended(op.id, now);
        return;
      }
      case "withdraw":
        this.waiting.delete(op.id);
        this.after.delete(op.id);
        scheduler.withdraw(op.id);
        return;
      case "hold":
        this.holds.delete(JSON.stringify(op.where));
        if (op.ms > 0) this.holds.set(JSON.stringify(op.where), { ...op.where, until: now + op.ms });
        scheduler.hold(op.where, op.ms > 0 ? now + op.ms : 0);
        return;
      case "campaign": {
        const { id, priority, maxDevices, weight, deadlineMs } = op;
        this.campaigns.set(id, { priority, maxDevices, weight, deadlineAt: deadlineMs === null ? null : now + deadlineMs });
        this.tell(id);
        return;
      }
      case "gone":
        this.campaigns.delete(op.id);
        for (const books of [this.waiting, this.after]) for (const [id, job] of books) if (job.campaign === op.id) books.delete(id);
        scheduler.removeCampaign(op.id);
        return;
      case "wait":
        this.now += op.ms;
        return;
      case "restart": {
        const fresh = (this.scheduler = new Scheduler({ starveMs: 100 }));
        const devices = () => [...this.devices.values()].reverse().forEach((d) => fresh.device(d));
        if (op.devicesFirst) devices();
        for (const id of this.campaigns.keys()) this.tell(id);
        for (const { job, devices: held } of this.running.values())
          fresh.running(
            job,
            held.map((d) => d.id),
            now,
            held.map((d) => d.domain),
          );
        for (const job of [...this.waiting.values(), ...this.after.values()]) fresh.enqueue(job, now);
        for (const { until, ...where } of this.holds.values()) if (until > now) fresh.hold(where, until);
        if (!op.devicesFirst) devices();
      }
    }
  }

  /** S1, S2, S4 for each start, as it is entered. */
  enter({ job, devices }: Assignment): void {
    expect(this.waiting.get(job.id)).toEqual(job);
    expect(devices).toHaveLength(job.devices);
    expect(new Set(devices.map((d) => d.agentId)).size).toBe(1);
    for (const device of devices) {
      expect(this.devices.get(device.id)).toEqual(device);
      expect(this.mayTake(job, device)).toBe(true);
    }
    expect(this.underCap(job)).toBe(true);
    this.waiting.delete(job.id);
    this.running.set(job.id, { job, devices });
    this.started.push(`${this.now} ${job.id}.${job.attempt} ${devices.map((d) => d.id).join("+")}`);
  }

  /** S3 and S5, after `next`. */
  check(): void {
    const [waits] = this.waiting.keys();
    const [runs] = this.running.keys();
    if (waits !== undefined) expect(this.scheduler.explain(waits, this.now).state).toBe("waiting");
    if (runs !== undefined) expect(this.scheduler.explain(runs, this.now).state).toBe("running");
    const { waiting, running } = this.scheduler.snapshot(this.now);
    expect([waiting, running]).toEqual([this.waiting.size, this.running.size]);
    const kept = this.kept();
    for (const job of this.waiting.values()) {
      if (!this.underCap(job)) continue;
      const free = [...this.devices.values()].filter((d) => !kept.has(d.id) && this.mayTake(job, d));
      for (const { agentId } of free) {
        const room = free.filter((d) => d.agentId === agentId).length;
        expect(room, `${job.id} could run on ${agentId}`).toBeLessThan(job.devices);
      }
    }
  }

  /** Devices that are idle for a gang: those that the scheduler names, if there is such a gang, and what shares a domain with them. */
  private kept(): Set<string> {
    const named = new Map<string, string>();
    for (const { id, reason } of this.scheduler.idle(this.now)) {
      const gang = /^is kept for gang (\w+):/.exec(reason)?.[1];
      if (gang !== undefined) named.set(id, gang);
    }
    for (const gang of named.values()) {
      const of = [...named].filter(([, g]) => g === gang).map(([id]) => this.devices.get(id)?.agentId);
      expect(of.length).toBeLessThanOrEqual(this.waiting.get(gang)?.devices ?? 0);
      expect(new Set(of).size).toBe(1);
    }
    const domains = new Set([...named.keys()].map((id) => this.devices.get(id)?.domain));
    return new Set([...this.devices.values()].filter((d) => domains.has(d.domain)).map((d) => d.id));
  }

  private tell(id: string): void {
    const known = this.campaigns.get(id);
    if (known) this.scheduler.campaign({ id, ...known });
  }

  private underCap(job: SchedulableJob): boolean {
    const held = [...this.running.values()].filter((r) => r.job.campaign === job.campaign).reduce((n, r) => n + r.devices.length, 0);
    return held + job.devices <= (this.campaigns.get(job.campaign)?.maxDevices ?? Infinity);
  }

  private mayTake(job: SchedulableJob, d: SchedulableDevice): boolean {
    const busy = [...this.running.values()].flatMap((r) => r.devices);
    const onHold = [...this.holds.values()].some(
      (h) => h.until > this.now && (h.pool ?? d.pool) === d.pool && (h.deviceId ?? d.id) === d.id,
    );
    const fit = job.pools.includes(d.pool) && job.slot === d.slot && job.simulated === d.simulated && !job.avoid.includes(d.id);
    const well = d.state === "ready" && (d.health === "good" || (d.health === "suspect" && job.canary));
    return fit && well && !onHold && !busy.some((b) => b.id === d.id || b.domain === d.domain);
  }
}

function play(ops: readonly Op[]): Books {
  const books = new Books();
  for (const op of ops) {
    books.perform(op);
    for (const start of books.scheduler.next(books.now)) books.enter(start);
    books.check();
  }
  return books;
}

describe("random histories of a fleet", () => {
  it("never share a device or a domain, lose no job, and leave no device idle that a job could have (S1 to S5)", () => {
    fc.assert(
      fc.property(histories, (ops) => {
        play(ops);
      }),
      { numRuns: 9_000 },
    );
  }, 120_000);

  it("give the same assignments again (S9)", () => {
    fc.assert(
      fc.property(histories, (ops) => {
        expect(play(ops).started).toEqual(play(ops).started);
      }),
      { numRuns: 1_000 },
    );
  }, 60_000);
});
