import { expect, test } from "vitest";
import type { AgentInfo, Job, JobResult } from "@vibeserve/shared";
import { Canaries } from "../../coordinator/src/fleet/canaries.ts";
import { FleetHealth } from "../../coordinator/src/fleet/health.ts";
import { agent, device, World } from "../campaign/world.ts";
import { simulatedOutcome } from "../kit/fake-outcomes.ts";

const HOUR = 3600_000;

/** Devices of one pool, a campaign that has built its seed, and a clock. */
async function fleet(...ids: string[]) {
  const agents: AgentInfo[] = ids.map((agentId) => ({ ...agent, agentId, devices: [{ ...device, id: `${agentId}-d` }] }));
  const state = { now: 1_000, offered: [] as { job: Job; device: string }[] };
  const campaign = new World([{ id: "q4", seam: "linear", stated: 2, truth: 2 }]).run();
  const health = new FleetHealth({
    file: null,
    agents: () => agents,
    changed: () => undefined,
    log: () => undefined,
    now: () => state.now,
  });
  const offer = (job: Job, _claim: unknown, of: string) => void state.offered.push({ job, device: of });
  const canaries = new Canaries({ health, campaigns: () => [campaign], offer, now: () => state.now });
  const answer = async ({ job, device: deviceId }: { job: Job; device: string }, speed = 1): Promise<JobResult> => {
    const of = { deviceId, agentId: deviceId.slice(0, 2), jobId: job.id, attempt: 1 };
    const lease = { v: 1 as const, kind: "lease" as const, ...of, token: 7, grantedAt: 1, ttlMs: 1, deadline: 1 };
    const outcome = await simulatedOutcome(job, lease, { device, speedOf: async () => speed, sign: () => "" });
    if (outcome.status !== "measured") throw new Error("a canary measures");
    // Of the same stack: some pairs say a little more, some a little less.
    const same = { ...outcome, comparison: { ...outcome.comparison, point: 1, lo: 0.99, hi: 1.01, ratios: [0.995, 1, 1.005] } };
    const result = { v: 1 as const, kind: "result" as const, campaign: job.campaign, ...of, leaseToken: 7, sandbox: "none" as const };
    return { ...result, startedAt: 1, endedAt: 2, outcome: same, log: null, sig: "" };
  };
  return { state, health, canaries, answer };
}

test("a good device has a canary by age; the first gives its rate, a later one that drifts makes it suspect, and one that passes clears it", async () => {
  const { state, health, canaries, answer } = await fleet("a1", "a2");
  await using _ = canaries;
  canaries.look();
  expect(state.offered).toEqual([]);
  state.now += 7 * HOUR;
  canaries.look();
  canaries.look();
  expect(state.offered.map((o) => o.device)).toEqual(["a1-d", "a2-d"]);
  const [first] = state.offered;
  if (!first) throw new Error("none");
  expect(canaries.standing(first.job).kind).toBe("open");
  const result = await answer(first);
  expect(canaries.settle(result, "an old token")).toBe(false);
  expect(canaries.settle(result, null)).toBe(true);
  expect(canaries.settle(result, null)).toBe(false);
  expect(canaries.standing(first.job).kind).toBe("over");
  expect(health.of("a1-d")).toMatchObject({ health: "good", history: { rates: [100] } });
  state.now += 7 * HOUR;
  canaries.look();
  const next = state.offered.findLast((o) => o.device === "a1-d");
  if (!next) throw new Error("none");
  canaries.settle(await answer(next, 0.8), null);
  expect(health.of("a1-d")).toMatchObject({ health: "suspect", reason: "its canary drifted: 80.00 tok/s, where it had 100.0" });
  state.now += HOUR;
  canaries.look();
  const again = state.offered.findLast((o) => o.device === "a1-d");
  if (!again || again === next) throw new Error("a suspect device is asked again");
  canaries.settle(await answer(again, 1.01), null);
  expect(health.of("a1-d")).toMatchObject({ health: "good", history: { rates: [100, 101] } });
});

test("the only device of its pool is never asked, and a canary that is lost is asked again", async () => {
  const alone = await fleet("a1");
  await using _ = alone.canaries;
  alone.canaries.look();
  alone.state.now += 9 * HOUR;
  alone.canaries.look();
  expect(alone.state.offered).toEqual([]);
  const two = await fleet("a1", "a2");
  await using __ = two.canaries;
  two.canaries.look();
  two.state.now += 7 * HOUR;
  two.canaries.look();
  const [lost] = two.state.offered;
  two.canaries.expire(lost?.job.id ?? "");
  expect(lost && two.canaries.standing(lost.job).kind).toBe("over");
  two.state.now += HOUR;
  two.canaries.look();
  expect(two.state.offered.filter((o) => o.device === lost?.device)).toHaveLength(2);
});
