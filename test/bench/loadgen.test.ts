import { median } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { load, loadPlan, promptOf } from "./bench-kit.ts";
import { idsOf, textOf } from "./fake-candidate.ts";
import { startFake } from "./fake-stack.ts";

it("times, ids and text of a closed loop are those of a server whose latencies are known", async () => {
  await using fake = await startFake({ firstMs: 60, tokenMs: 20 });
  const r = await load(loadPlan(fake.socketPath, 12, 10));
  expect(r.end).toBe("complete");
  expect(r.records.map((x) => x.index)).toEqual(Array.from({ length: 12 }, (_, i) => i));
  for (const x of r.records) {
    expect(x).toMatchObject({ status: 200, finish: "length", done: true, error: null, usage: { promptTokens: 10, completionTokens: 10 } });
    const ids = idsOf(promptOf(x.index), 10);
    expect(x.chunks.map((c) => c.ids)).toEqual(ids.map((id) => [id]));
    expect(x.chunks.map((c) => c.text).join("")).toBe(textOf(ids));
  }
  const first = median(r.records.map((x) => (x.chunks[0]?.atMs ?? NaN) - x.scheduledMs));
  expect(first).toBeGreaterThan(55);
  expect(first).toBeLessThan(120);
  const gap = median(r.records.map((x) => ((x.chunks[9]?.atMs ?? NaN) - (x.chunks[0]?.atMs ?? NaN)) / 9));
  expect(gap).toBeGreaterThan(18);
  expect(gap).toBeLessThan(26);
});

it("each client of a closed loop sends its next request when its last one ended, and no more than C are under way", async () => {
  await using fake = await startFake({ firstMs: 20, tokenMs: 5 });
  const { records } = await load(loadPlan(fake.socketPath, 20, 6, { connections: 3 }));
  for (const client of [0, 1, 2]) {
    const own = records.filter((r) => r.connection === client);
    expect(own.length).toBeGreaterThan(3);
    for (const [i, r] of own.entries()) expect(r.scheduledMs).toBe(i === 0 ? 0 : own[i - 1]?.endMs);
  }
});

it("a server that stalls for a second shows it in every request that was due meanwhile, from its scheduled instant on", async () => {
  await using fake = await startFake({ firstMs: 10, tokenMs: 1, stallAtMs: 300, stallMs: 1000 });
  const base = loadPlan(fake.socketPath, 30, 3, { mode: "open", connections: 2 });
  const r = await load({ ...base, requests: base.requests.map((q, i) => ({ ...q, atMs: i * 50 })) });
  expect(r.end).toBe("complete");
  expect(r.records.map((x) => x.scheduledMs)).toEqual(base.requests.map((_, i) => i * 50));
  const during = r.records.filter((x) => x.scheduledMs >= 400 && x.scheduledMs <= 1150);
  expect(during.length).toBe(16);
  // Only two connections: with the clock started at sending, all but two would look fast.
  for (const x of during) expect((x.endMs ?? 0) - x.scheduledMs).toBeGreaterThan(1290 - x.scheduledMs);
  expect(r.self.slipP99Ms).toBeLessThan(200);
});

it("a server that never answers ends at the time limit", async () => {
  await using fake = await startFake({ firstMs: 5, tokenMs: 1, trick: "hang" });
  const r = await load(loadPlan(fake.socketPath, 8, 4, { limitMs: 600 }));
  expect(r.end).toBe("limit");
  expect(r.self.wallS).toBeLessThan(3);
  expect(r.records.filter((x) => x.endMs === null).map((x) => x.error)).toEqual(["no answer"]);
});

it.each([
  ["crash", /the connection ended in the middle/],
  ["refuse", /another status than 200/],
  ["garbage", /./],
] as const)("a server that plays %s ends the run at once", async (trick, reason) => {
  await using fake = await startFake({ firstMs: 5, tokenMs: 5, trick });
  const r = await load(loadPlan(fake.socketPath, 8, 6, { limitMs: 8000 }));
  expect(r.end).toBe("broken");
  expect(r.reason).toMatch(reason);
  expect(r.self.wallS).toBeLessThan(4);
  if (trick === "refuse") expect(r.records.some((x) => x.error?.includes("no such field"))).toBe(true);
});

it("a flood ends the run at its bound and the generator's memory stays small", async () => {
  await using fake = await startFake({ firstMs: 5, tokenMs: 5, trick: "flood" });
  const r = await load(loadPlan(fake.socketPath, 8, 6, { responseBytes: 4e6, totalBytes: 8e6 }));
  expect(r.end).toBe("flood");
  expect(r.self.rssBytes).toBeLessThan(200e6);
});

it("a socket that nobody listens on is a broken run, not an error of the generator", async () => {
  const r = await load(loadPlan("/tmp/vs-nobody.sock", 2, 2));
  expect(r).toMatchObject({ end: "broken", records: [] });
  expect(r.reason).toMatch(/no connection/);
});
