import { expect, test, vi } from "vitest";
import { benchCapacity } from "../../coordinator/src/benchmarks/capacity.ts";
import { loadSettings } from "../../coordinator/src/config.ts";

vi.setConfig({ testTimeout: 120_000 });

test("bench capacity counts what agents and campaigns leave on disk and send, with real processes", async () => {
  const signal = new AbortController().signal;
  const settings = loadSettings({});
  const report = await benchCapacity({ settings, agents: 2, campaigns: 1, idleS: 6, signal, log: process.stderr });
  const value = (what: RegExp) => report.rows.find((r) => what.test(r.what))?.value ?? 0;
  expect(value(/nobody: memory of the coordinator/)).toBeGreaterThan(20);
  // One beat in 6 s at the least, in to the broker and out to the coordinator.
  expect(value(/an agent that waits: messages/)).toBeGreaterThanOrEqual(10);
  expect(value(/a campaign of 2 experiments: messages/)).toBeGreaterThan(50);
  for (const part of [/disk for events/, /disk for candidates/, /disk for git/]) expect(value(part)).toBeGreaterThan(1);
});
