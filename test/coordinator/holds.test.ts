import { join } from "node:path";
import { Explained, ExplainRequest, Holds, HoldsRequest, type Hold, type Where } from "@vibeserve/shared";
import { expect, test } from "vitest";
import { activeUntil, FleetHolds } from "../../coordinator/src/fleet/holds.ts";
import { factOf, startCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const at = (time: string) => new Date(`2026-03-02T${time}:00`).getTime();

test.each([
  ["08:00", "18:00", "07:59", null],
  ["08:00", "18:00", "08:00", "18:00"],
  ["08:00", "18:00", "18:00", null],
  ["22:00", "06:00", "23:30", "30:00"],
  ["22:00", "06:00", "05:59", "06:00"],
  ["22:00", "06:00", "06:00", null],
])("quiet hours from %s to %s, at %s", (from, to, now, end) => {
  const ends = end === null ? null : end === "30:00" ? at("06:00") + 24 * 3_600_000 : at(end);
  expect(activeUntil({ until: null, daily: { from, to } }, at(now))).toBe(ends);
});

test("a hold outlives its coordinator, the longest on the same devices counts, and what has passed is forgotten", async () => {
  using dir = tempDir("holds");
  const now = { ms: 1_000_000 };
  const calls: [Where, number][] = [];
  const open = () =>
    new FleetHolds({ file: join(dir.path, "holds.json"), hold: (where, until) => void calls.push([where, until]), now: () => now.ms });
  const hold = (until: number | null, where: Where): Omit<Hold, "at"> => ({
    purpose: "yield",
    where,
    until,
    daily: null,
    reason: "traffic",
  });
  {
    await using holds = open();
    holds.add(hold(1_500_000, { pool: "p" }));
    holds.add(hold(1_200_000, { pool: "p" }));
    holds.add(hold(null, { agentId: "a" }));
    expect(calls.slice(-2)).toEqual([
      [{ pool: "p" }, 1_500_000],
      [{ agentId: "a" }, Number.MAX_SAFE_INTEGER],
    ]);
    expect(holds.lift({ pool: "other" })).toBe(false);
  }
  now.ms = 1_600_000;
  await using again = open();
  expect(again.list().map((h) => [h.where, h.active])).toEqual([[{ agentId: "a" }, true]]);
  expect(calls).toContainEqual([{ pool: "p" }, 0]);
  expect(again.lift({ agentId: "a" })).toBe(true);
  expect(calls.at(-1)).toEqual([{ agentId: "a" }, 0]);
});

test("a yielded agent ends what it runs and gets nothing new until it is given back; explain says why", async () => {
  using dir = tempDir("holds");
  await using real = await startCoordinator(dir.path);
  const started = Promise.withResolvers<undefined>();
  const gate = Promise.withResolvers<undefined>();
  let first = true;
  const agent = await real.agent("a1", {
    work: async (job, lease) => {
      if (first) {
        first = false;
        started.resolve(undefined);
        await gate.promise;
      }
      return agent.outcome(job, lease);
    },
  });
  await using _ = agent;
  const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
  await started.promise;
  await using client = await real.client();
  const ask = async (add: Omit<Hold, "at"> | null, lift: Where | null) =>
    client.ask("holds", HoldsRequest, { v: 1, kind: "holds.request", add, lift }, Holds);
  const explain = async (job: string | null) => client.ask("explain", ExplainRequest, { v: 1, kind: "explain.request", job }, Explained);
  const held = await ask({ purpose: "yield", where: { agentId: "a1" }, until: null, daily: null, reason: "evening traffic" }, null);
  expect(held).toMatchObject({ holds: [{ active: true }], running: [{ deviceId: "a1-builder" }] });
  gate.resolve(undefined);
  const next = await factOf(real, actor, "job.requested", (f) => f.job.spec.kind === "check");
  const why = await explain(next.job.id);
  expect(why).toMatchObject({ job: { id: next.job.id, state: "waiting", etaMs: null } });
  expect(JSON.stringify(why)).toContain("yielded to production: evening traffic");
  expect(agent.leases).toHaveLength(1);
  await expect(ask(null, { agentId: "a2" })).rejects.toThrow("nothing is held on agent a2");
  await ask(null, { agentId: "a1" });
  await actor.ended;
  expect(actor.state.ended?.outcome).toBe("proven");
  expect(await explain(null)).toMatchObject({
    devices: [{ id: "a1-builder" }, { id: "a1-cpu", doing: expect.stringContaining("no job waits") as string }],
  });
});
