import { describe, expect, it } from "vitest";
import type { SchedulableDevice, SchedulableJob } from "../../coordinator/src/schedule/model.ts";
import { Scheduler } from "../../coordinator/src/schedule/scheduler.ts";

const device = (id: string, change: Partial<SchedulableDevice> = {}): SchedulableDevice => ({
  id,
  agentId: id.split("-")[0] ?? id,
  pool: "p",
  slot: "device",
  domain: id,
  state: "ready",
  health: "good",
  simulated: true,
  ...change,
});

const job = (id: string, change: Partial<SchedulableJob> = {}): SchedulableJob => ({
  id,
  attempt: 1,
  campaign: id.split("-")[0] ?? id,
  kind: "bench",
  pools: ["p"],
  slot: "device",
  devices: 1,
  simulated: true,
  avoid: [],
  expectedMs: 100,
  canary: false,
  ...change,
});

const shown = (s: Scheduler, now: number): string[] =>
  s.next(now).map((a) => `${a.job.id}.${a.job.attempt}@${a.devices.map((d) => d.id).join("+")}`);

describe("who gets which device", () => {
  it("starts a job on a device that suits it, once, and the next when it has ended", () => {
    const s = new Scheduler();
    s.device(device("a-0"));
    s.device(device("b-0", { slot: "builder" }));
    s.device(device("c-0", { simulated: false }));
    s.enqueue(job("x-1"), 0);
    s.enqueue(job("x-2"), 0);
    s.enqueue(job("x-1"), 1);
    expect(shown(s, 1)).toEqual(["x-1.1@a-0"]);
    expect(shown(s, 2)).toEqual([]);
    s.ended("x-1", 100);
    expect(shown(s, 100)).toEqual(["x-2.1@a-0"]);
  });

  it("keeps a higher attempt back until the earlier one has ended", () => {
    const s = new Scheduler();
    for (const id of ["a-0", "b-0"]) s.device(device(id));
    s.enqueue(job("x-1"), 0);
    expect(shown(s, 0)).toEqual(["x-1.1@a-0"]);
    s.enqueue(job("x-1", { attempt: 2, avoid: ["a-0"] }), 1);
    expect(shown(s, 1)).toEqual([]);
    s.ended("x-1", 2);
    expect(shown(s, 2)).toEqual(["x-1.2@b-0"]);
    s.ended("x-1", 3, 1);
    s.enqueue(job("x-2", { avoid: ["a-0"] }), 3);
    expect(shown(s, 3)).toEqual([]);
  });

  it("runs one job in a domain, and pools that share a machine take turns by time", () => {
    const s = new Scheduler();
    s.device(device("m-512", { pool: "avx512", domain: "m" }));
    s.device(device("m-2", { pool: "avx2", domain: "m" }));
    for (const n of [1, 2, 3, 4]) {
      s.enqueue(job(`x-${n}`, { pools: ["avx512"] }), 0);
      s.enqueue(job(`y-${n}`, { pools: ["avx2"] }), 0);
    }
    const order: string[] = [];
    for (let now = 0; now < 800; now += 100) {
      const started = s.next(now);
      expect(started).toHaveLength(1);
      order.push(started[0]?.job.campaign ?? "");
      s.ended(started[0]?.job.id ?? "", now + 100);
    }
    for (const pair of [0, 2, 4, 6]) expect(order.slice(pair, pair + 2).sort()).toEqual(["x", "y"]);
  });

  it("knows what ran before a restart, though the devices come later", () => {
    const s = new Scheduler();
    s.running(job("x-1"), ["a-0"], 0);
    s.device(device("a-0"));
    s.enqueue(job("x-2"), 1);
    expect(shown(s, 1)).toEqual([]);
    s.ended("x-1", 2);
    expect(shown(s, 2)).toEqual(["x-2.1@a-0"]);
    expect(() => s.running(job("y-1"), ["a-0"], 3)).toThrow("it runs job x-2");
  });

  it("keeps devices for a gang whose turn it is, and fills the gap only with what ends before", () => {
    const s = new Scheduler();
    for (const id of ["a-0", "a-1"]) s.device(device(id));
    s.enqueue(job("x-1", { expectedMs: 50 }), 0);
    s.enqueue(job("x-2", { expectedMs: 100 }), 0);
    expect(shown(s, 0)).toHaveLength(2);
    s.enqueue(job("g-1", { devices: 2 }), 1);
    s.enqueue(job("x-3", { expectedMs: 80 }), 2);
    s.enqueue(job("x-4", { expectedMs: 40 }), 2);
    s.ended("x-1", 50);
    expect(shown(s, 50)).toEqual(["x-4.1@a-0"]);
    s.ended("x-4", 90);
    expect(shown(s, 90)).toEqual([]);
    s.ended("x-2", 100);
    expect(shown(s, 100)).toEqual(["g-1.1@a-0+a-1"]);
    s.ended("g-1", 200);
    expect(shown(s, 200)).toEqual(["x-3.1@a-0"]);
  });

  it("starts nothing where there is a hold, until it is over", () => {
    const s = new Scheduler();
    s.device(device("a-0"));
    s.hold({ pool: "p" }, 1_000);
    s.enqueue(job("x-1"), 0);
    expect(shown(s, 999)).toEqual([]);
    expect(shown(s, 1_000)).toEqual(["x-1.1@a-0"]);
  });

  it("says why a job waits, when its turn is, and what each device of its pools does", () => {
    const s = new Scheduler();
    s.device(device("a-0"));
    s.device(device("b-0", { state: "draining" }));
    s.device(device("c-0", { health: "suspect" }));
    for (const n of [1, 2, 3]) s.enqueue(job(`x-${n}`, { expectedMs: 1_000 }), 0);
    s.next(0);
    expect(s.explain("x-1", 400)).toMatchObject({ state: "running", position: null, etaMs: 600 });
    expect(s.explain("x-3", 400)).toEqual({
      jobId: "x-3",
      state: "waiting",
      position: 2,
      etaMs: 1_600,
      reason: "no device of pool p is free: 1 suit, all are taken",
      devices: [
        { id: "a-0", doing: "runs job x-1 for 0.4 s, expected 1.0 s" },
        { id: "b-0", doing: "is draining" },
        { id: "c-0", doing: "is suspect: it takes canaries only" },
      ],
    });
    s.enqueue(job("x-4", { avoid: ["a-0"] }), 400);
    expect(s.explain("x-4", 400)).toMatchObject({ etaMs: null, reason: "0 of 3 devices of pool p could take it, and it needs 1" });
    s.campaign({ id: "y", weight: 1, priority: 0, deadlineAt: null, maxDevices: 0 });
    s.enqueue(job("y-1"), 400);
    expect(s.explain("y-1", 400).reason).toBe("campaign y may hold 0 devices at once, and holds 0");
    expect(s.explain("z-1", 400).state).toBe("unknown");
    s.hold({ deviceId: "a-0" }, 5_000, "yield");
    s.ended("x-1", 1_000);
    expect(s.next(1_000)).toEqual([]);
    expect(s.idle(1_000)).toEqual([
      { id: "a-0", reason: "starts nothing until 1970-01-01T00:00:05.000Z: yield" },
      { id: "b-0", reason: "is draining" },
      { id: "c-0", reason: "is suspect: it takes canaries only" },
    ]);
  });

  it("gives a suspect device canaries only, and one that names its device no other", () => {
    const s = new Scheduler();
    s.device(device("a-0"));
    s.device(device("b-0", { health: "suspect" }));
    s.enqueue(job("x-1", { canary: true, only: ["b-0"] }), 0);
    expect(shown(s, 0)).toEqual(["x-1.1@b-0"]);
    s.enqueue(job("x-2", { canary: true, only: ["b-0"] }), 0);
    expect(shown(s, 0)).toEqual([]);
    s.enqueue(job("x-3"), 0);
    expect(shown(s, 0)).toEqual(["x-3.1@a-0"]);
  });

  it("keeps what it keeps for a gang when another one, which starves and fits nowhere, asks for it", () => {
    const s = new Scheduler({ starveMs: 100 });
    s.device(device("a-0", { domain: "m" }));
    s.device(device("a-1"));
    s.device(device("a-2", { health: "suspect" }));
    s.device(device("b-0", { pool: "q", domain: "m" }));
    s.enqueue(job("k-1", { pools: ["q"] }), 0);
    expect(shown(s, 0)).toEqual(["k-1.1@b-0"]);
    s.enqueue(job("g-1", { devices: 2 }), 0);
    expect(shown(s, 0)).toEqual([]);
    s.enqueue(job("g-2", { devices: 3 }), 0);
    const kept = () => s.idle(100).find(({ id }) => id === "a-1")?.reason;
    expect(shown(s, 0)).toEqual([]);
    expect(kept()).toContain("is kept for gang g-1");
    s.enqueue(job("x-1", { devices: 3, canary: true, avoid: ["a-0"] }), 100);
    expect(shown(s, 100)).toEqual([]);
    expect(kept()).toContain("is kept for gang g-1");
    s.ended("k-1", 101);
    expect(shown(s, 101)).toEqual(["g-1.1@a-0+a-1"]);
  });

  it("prefers the first pool of a job where both are free", () => {
    const s = new Scheduler();
    s.device(device("q-0", { pool: "q" }));
    s.device(device("p-0"));
    s.enqueue(job("x-1", { pools: ["p", "q"] }), 0);
    expect(shown(s, 0)).toEqual(["x-1.1@p-0"]);
    s.enqueue(job("x-2", { pools: ["p", "q"] }), 0);
    expect(shown(s, 0)).toEqual(["x-2.1@q-0"]);
  });

  it("counts what runs and waits, and what each campaign had", () => {
    const s = new Scheduler();
    s.device(device("a-0"));
    s.device(device("a-1"));
    s.enqueue(job("g-1", { devices: 2 }), 0);
    s.enqueue(job("x-1"), 0);
    s.next(0);
    const { lanes, shares, ...sizes } = s.snapshot(50);
    expect(sizes).toEqual({ devices: 2, free: 0, waiting: 1, running: 1 });
    expect(lanes).toMatchObject([{ pool: "p", slot: "device", devices: 2, waiting: 1, running: 1, keptFor: null }]);
    expect(shares.find((x) => x.campaign === "g")).toMatchObject({ running: 1, usedMs: 100 });
  });
});
