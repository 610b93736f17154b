import { readdirSync } from "node:fs";
import { PassThrough } from "node:stream";
import { afterEach, expect, test, vi } from "vitest";
import { benchFleet } from "../../coordinator/src/benchmarks/fleet/fleet.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { tempDir } from "../kit/temp-dir.ts";

vi.setConfig({ testTimeout: 120_000 });
afterEach(() => vi.unstubAllEnvs());

test("a few campaigns and agents give every row a value, and leave no file behind", async () => {
  using dir = tempDir("fleet");
  vi.stubEnv("TMPDIR", dir.path);
  const small = {
    ...{ agents: 20, campaigns: 7, experiments: 14, beatS: 1, connected: 5, rate: 20, rateS: 1, searching: 5, settledS: 1 },
    ...{ fanBytes: 3e6, fanAgents: 3, fleets: 1 },
  };
  const log = new PassThrough({ encoding: "utf8" });
  const report = await benchFleet({ ...small, settings: loadSettings({}), signal: new AbortController().signal, log });
  expect(report.rows.map((r) => [r.what, r.goal])).toEqual([
    ["coordinator restart with 14 experiments: first dispatch", "<= 5"],
    ["coordinator restart with 14 experiments: every log read, from when the first is", ""],
    [expect.stringMatching(/^floor: raw read of as many messages/), ""],
    ["coordinator restart with 14 experiments: resident memory of the coordinator", ""],
    ["20 agents: beats, CPU", "<= 10"],
    [expect.stringMatching(/^floor: a subscription that counts/), ""],
    ["20 agents: snapshot of agents, devices and queues, encoded", "<= 1"],
    ["20 agents: registry opened", ""],
    ["floor: raw JetStream on the same broker, p50", ""],
    ["dispatch at 5 agents, 20 jobs/s, p50", "<= 2"],
    ["dispatch at 5 agents, 20 jobs/s, p99", "<= 10"],
    ["dispatch at 5 agents, 20 jobs/s: p50 / raw JetStream's", "<= 5"],
    ["settled jobs, synced to disk", ">= 500"],
    ["floor: persisted messages in 3 streams", ""],
    ["settled jobs / (floor / 4 messages a job)", ">= 50"],
    ["artifact fan-out, 3 MB to 3 agents: bytes sent / one copy per agent", "<= 1.3"],
    ["artifact fan-out, 3 MB to 3 agents: time", ""],
    ["floor: raw copy of the same bytes through the same broker", ""],
    ["artifact fan-out / floor", ""],
    [expect.stringMatching(/^simulated fleets \(seeds \d+\), worst: makespan/), "<= 1.1"],
    [expect.stringMatching(/^simulated fleets .*idle share/), "<= 5"],
    [expect.stringMatching(/^simulated fleets .*among equals/), "<= 1.1"],
  ]);
  for (const { what, value } of report.rows) expect(value, what).toSatisfy((v: number) => Number.isFinite(v) && v >= 0);
  expect(readdirSync(dir.path)).toEqual([]);
});
