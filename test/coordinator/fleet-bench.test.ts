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
  const small = { agents: 20, campaigns: 7, experiments: 14, beatS: 1 };
  const log = new PassThrough({ encoding: "utf8" });
  const report = await benchFleet({ ...small, settings: loadSettings({}), signal: new AbortController().signal, log });
  expect(report.rows.map((r) => [r.what, r.goal])).toEqual([
    ["coordinator restart with 14 experiments: first dispatch", "<= 5"],
    ["coordinator restart with 14 experiments: every log read, from when the first is", ""],
    [expect.stringMatching(/^floor: raw read of as many messages/), ""],
    ["coordinator restart with 14 experiments: resident memory of the coordinator", ""],
    ["20 agents: beats, CPU", "<= 10"],
    [expect.stringMatching(/^floor: a subscription that counts/), ""],
    ["20 agents: registry opened", ""],
  ]);
  for (const { what, value } of report.rows) expect(value, what).toBeGreaterThan(0);
  expect(readdirSync(dir.path)).toEqual([]);
});
