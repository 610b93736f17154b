import { expect, test } from "vitest";
import type { Job, Lease, Outcome } from "@vibeserve/shared";
import { AgentsPage, AgentsRequest, DeviceGood } from "@vibeserve/shared";
import type { FakeAgent } from "../kit/fake-agent.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const options = { baselines: [], repeat: null };
const crashed: Outcome = {
  status: "failed",
  failure: { attribution: "candidate", code: "died-under-load", message: "the server ended by SIGSEGV while it was loaded", logTail: "" },
};

/** An agent that answers as `odd` says, and honestly where that is null. */
async function agentThat(real: RealCoordinator, id: string, odd: (job: Job, lease: Lease) => Outcome | null): Promise<FakeAgent> {
  const agent: FakeAgent = await real.agent(id, { work: async (job, lease) => odd(job, lease) ?? agent.outcome(job, lease) });
  return agent;
}

const isBench = (job: Job) => job.spec.kind === "bench";

test("a crash that only one device sees is that device's: the idea is judged by what another measured, and the device becomes suspect", async () => {
  using dir = tempDir("second");
  await using real = await startCoordinator(dir.path, { settings: { canary: "off" } });
  await using _sick = await agentThat(real, "a1", (job) => (isBench(job) ? crashed : null));
  await using _sound = await agentThat(real, "a2", () => null);
  const actor = await real.coordinator.submit(tinyTarget, options);
  await actor.ended;
  expect(actor.state.ended?.outcome).toBe("proven");
  expect(actor.state.experiments.filter((x) => x.settled?.outcome === "implementation_failed")).toEqual([]);
  const held = actor.events.flatMap(({ event: { fact } }) => (fact.type === "job.settled" && fact.verdict ? [fact] : []));
  const [first] = held;
  expect(first).toMatchObject({ accepted: true, result: { deviceId: "a1-cpu" }, verdict: { secondDevice: true, code: "died-under-load" } });
  const second = await factOf(real, actor, "job.settled", (f) => f.result.jobId === first?.result.jobId && f.verdict === undefined);
  expect(second.result).toMatchObject({ deviceId: "a2-cpu", attempt: 2, outcome: { status: "measured" } });
  await using client = await real.client();
  const page = () => client.ask("agents", AgentsRequest, { v: 1, kind: "agents.request", after: null }, AgentsPage);
  const health = async () => (await page()).agents.map((a) => a.devices[0]?.health?.health ?? "good");
  expect(await health()).toEqual(["suspect", "good"]);
  expect((await page()).agents[0]?.devices[0]?.health?.reason).toMatch(
    /twice a job failed on it and went well elsewhere, the last, .*, on a2-cpu/,
  );
  const good = { v: 1 as const, kind: "device.good" as const, id: "a1", reason: "cable changed" };
  await client.ask("device-good", DeviceGood, good, DeviceGood);
  expect(await health()).toEqual(["good", "good"]);
  expect((await page()).agents[0]?.devices[0]?.health?.reason).toBe("a person says so: cable changed");
  await expect(client.ask("device-good", DeviceGood, { ...good, id: "nobody" }, DeviceGood)).rejects.toThrow(/nothing is known against/);
});

test("what two devices fail alike counts against the candidate, once", async () => {
  using dir = tempDir("second");
  await using real = await startCoordinator(dir.path);
  const screened = (job: Job) => (isBench(job) && job.experiment === "e1" ? crashed : null);
  await using _one = await agentThat(real, "a1", screened);
  await using _two = await agentThat(real, "a2", screened);
  const actor = await real.coordinator.submit(tinyTarget, options);
  const settled = await factOf(real, actor, "experiment.settled", (f) => f.experimentId === "e1");
  expect(settled).toMatchObject({ outcome: "implementation_failed", reason: expect.stringMatching(/died-under-load/) as string });
  const answers = actor.events.flatMap(({ event: { fact } }) =>
    fact.type === "job.settled" && fact.result.jobId.endsWith("_e1_screen")
      ? [[fact.result.deviceId, fact.verdict?.secondDevice ?? false]]
      : [],
  );
  expect(answers.map(([, held]) => held)).toEqual([true, false]);
  expect(new Set(answers.map(([id]) => id)).size).toBe(2);
});

test("with one device the agent's word stands; with two that become one, the job that avoids the other's device goes to what is left", async () => {
  using dir = tempDir("second");
  await using real = await startCoordinator(dir.path);
  const screened = (job: Job) => (isBench(job) && job.experiment === "e1" ? crashed : null);
  await using _one = await agentThat(real, "a1", screened);
  const two = await real.agent("a2", { work: async () => "silent" });
  await two.register({ ...two.info, state: "draining" });
  await expect.poll(() => real.reports.some((r) => r.event === "agent.changed" && r.facts["agentId"] === "a2")).toBe(true);
  const actor = await real.coordinator.submit(tinyTarget, options);
  const settled = await factOf(real, actor, "experiment.settled", (f) => f.experimentId === "e1");
  expect(settled.outcome).toBe("implementation_failed");
  expect(actor.events.some(({ event: { fact } }) => fact.type === "job.settled" && fact.verdict !== undefined)).toBe(false);
  await two[Symbol.asyncDispose]();
});

test("numbers that can't be are evidence: the job is measured again, and their device is out of service over a restart of the coordinator", async () => {
  using dir = tempDir("second");
  let lied = "";
  {
    await using real = await startCoordinator(dir.path);
    const liar: FakeAgent = await real.agent("a1", {
      work: async (job, lease) => {
        const outcome = await liar.outcome(job, lease);
        if (outcome.status !== "measured") return outcome;
        lied = job.id;
        const { comparison: c } = outcome;
        return {
          ...outcome,
          comparison: { ...c, point: c.point * 1e6, lo: c.lo * 1e6, hi: c.hi * 1e6, ratios: c.ratios.map((r) => r * 1e6) },
        };
      },
    });
    await using _ = liar;
    const actor = await real.coordinator.submit(tinyTarget, options);
    const settled = await factOf(real, actor, "job.settled", (f) => f.result.outcome.status === "measured");
    expect(settled).toMatchObject({ accepted: true, verdict: { attribution: "device", code: "impossible-numbers", secondDevice: false } });
    const doubted = await factOf(real, actor, "results.suspected");
    expect(doubted).toMatchObject({ deviceId: "a1-cpu", since: null, why: expect.stringMatching(/reports what can't be/) as string });
    expect(doubted.jobs).toContain(`${actor.id}_seed_check`);
    // What the campaign rests on stands; the screening's own check is made again.
    expect(actor.state.ledger[`${actor.id}_seed_check`]?.status).toBe("over");
    await expect.poll(() => actor.state.ledger[`${actor.id}_e1_check`]?.attempt).toBe(2);
    expect(actor.state.ledger[lied]).toMatchObject({ failures: { device: 1, other: 0 }, avoid: ["a1-cpu"] });
    expect(real.reports.find((r) => r.event === "device.health")?.facts).toMatchObject({ deviceId: "a1-cpu", health: "suspect" });
  }
  await using again = await startCoordinator(dir.path);
  await using _sound = await agentThat(again, "a2", () => null);
  const actor = again.coordinator.campaigns.list()[0];
  await actor?.ended;
  expect(actor?.state.ended?.outcome).toBe("proven");
  await using client = await again.client();
  const rows = await client.ask("agents", AgentsRequest, { v: 1, kind: "agents.request", after: null }, AgentsPage);
  expect(rows.agents.map((a) => [a.agentId, a.state])).toEqual([
    ["a1", "away"],
    ["a2", "ready"],
  ]);
});

test("a suspect device is asked for a canary at once, and quarantined when it fails what is known to work; no campaign has or pays for it", async () => {
  using dir = tempDir("second");
  await using real = await startCoordinator(dir.path);
  const canaries: Job[] = [];
  const sick = (job: Job) => {
    if (job.spec.kind === "bench" && job.spec.purpose === "canary") canaries.push(job);
    return isBench(job) ? crashed : null;
  };
  await using _one = await agentThat(real, "a1", sick);
  await using _two = await agentThat(real, "a2", () => null);
  const actor = await real.coordinator.submit(tinyTarget, options);
  const health = () => real.reports.filter((r) => r.event === "device.health").map((r) => [r.facts["deviceId"], r.facts["health"]]);
  await expect.poll(health, { timeout: 10_000 }).toEqual([
    ["a1-cpu", "suspect"],
    ["a1-cpu", "quarantined"],
  ]);
  await actor.ended;
  expect(actor.state.ended?.outcome).toBe("proven");
  expect(canaries).toHaveLength(1);
  expect(canaries[0]).toMatchObject({ campaign: "canaries", experiment: "a1-cpu" });
  const { spec } = canaries[0] as Job;
  expect(spec.kind === "bench" && spec.challenger.stack).toEqual(spec.kind === "bench" && spec.champion.stack);
  expect(actor.events.some(({ event: { fact } }) => fact.type === "job.requested" && fact.job.id === canaries[0]?.id)).toBe(false);
});
