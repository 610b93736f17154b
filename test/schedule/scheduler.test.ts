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
    expect(s.wakeAt()).toBe(1_000);
    expect(shown(s, 1_000)).toEqual(["x-1.1@a-0"]);
    expect(s.wakeAt()).toBeNull();
  });
});
