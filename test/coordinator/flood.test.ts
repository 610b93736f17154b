import { encode, Progress, subjects, type Job, type Lease } from "@vibeserve/shared";
import { expect, test } from "vitest";
import type { FakeAgent } from "../kit/fake-agent.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

/** An agent with good credentials that says more than it should, as often as it can: it costs the campaigns, and the others, next to nothing. */
const options = { baselines: [], repeat: null };
const FLOOD = 600;

async function campaign(real: RealCoordinator) {
  const taken = Promise.withResolvers<{ job: Job; lease: Lease }>();
  const rogue = await real.agent("a1", {
    work: async (job, lease) => {
      taken.resolve({ job, lease });
      return "silent";
    },
  });
  const actor = await real.coordinator.submit(tinyTarget, options);
  return { rogue, actor, ...(await taken.promise) };
}

const kept = (actor: { events: readonly { event: { fact: { type: string } } }[] }) =>
  actor.events.map(({ event: { fact } }) => fact as { type: string; accepted?: boolean; dropped?: number; agentId?: string });

test("a flood of signed results that change nothing leaves a bounded part in the log and one count; its sender becomes suspect, the campaign goes on", async () => {
  using dir = tempDir("flood");
  const before = await (async () => {
    await using real = await startCoordinator(dir.path, { leaseTtlMs: 60_000, settings: { canary: "off" } });
    const { rogue, actor, job, lease } = await campaign(real);
    const outcome = await rogue.outcome(job, lease);
    await rogue.register({ ...rogue.info, state: "draining" });
    // Of the job that it holds, of others, and of jobs that nobody asked for; each signed, each another one.
    for (let i = 0; i < FLOOD; i++) {
      const id = i % 3 === 0 ? job.id : `${job.id}-${i % 100}`;
      await rogue.publish(rogue.signed({ ...job, id }, lease, outcome, { leaseToken: lease.token + 1, endedAt: 1000 + i }));
    }
    await factOf(real, actor, "evidence.dropped", (f) => f.dropped >= 512);
    const facts = kept(actor);
    expect(facts.filter((f) => f.type === "job.settled" && f.accepted === false).length).toBeLessThanOrEqual(64);
    expect(facts.filter((f) => f.type === "evidence.dropped").map((f) => f.dropped)).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    expect(facts.find((f) => f.type === "evidence.dropped")).toMatchObject({ agentId: "a1" });
    expect(real.reports.filter((r) => r.event === "device.health").map((r) => r.facts)).toMatchObject([
      { deviceId: "a1-cpu", health: "suspect", why: expect.stringMatching(/results too many that change nothing/) as string },
    ]);
    // The answer that counts is still heard, and what is left goes to an agent that is believed.
    await rogue.publish(rogue.signed(job, lease, outcome));
    await factOf(real, actor, "job.settled", (f) => f.accepted && f.result.jobId === job.id);
    await using _sound = await real.agent("a2");
    await actor.ended;
    expect(actor.state.ended?.outcome).toBe("proven");
    await rogue[Symbol.asyncDispose]();
    return { id: actor.id, seed: await real.enroll("a1"), job, lease, outcome };
  })();
  // What was kept counts on in the next life.
  await using real = await startCoordinator(dir.path, { settings: { canary: "off" } });
  await real.coordinator.campaigns.all;
  const rogue: FakeAgent = await real.agentWith("a1", before.seed);
  await using _rogue = rogue;
  const actor = real.coordinator.campaigns.list().find(({ id }) => id === before.id);
  if (!actor) throw new Error("the campaign is gone");
  const length = actor.events.length;
  for (let i = 0; i < 50; i++) await rogue.publish(rogue.signed(before.job, before.lease, before.outcome, { endedAt: 9000 + i }));
  await expect.poll(() => real.reports.filter((r) => r.event === "result.recorded").length).toBe(50);
  expect(actor.events.length).toBe(length);
}, 60_000);

test("a flood of reports is answered a few times, one of beats and entries is read now and again; what was written last counts", async () => {
  using dir = tempDir("flood");
  await using real = await startCoordinator(dir.path, { leaseTtlMs: 60_000 });
  const { rogue, job, lease } = await campaign(real);
  await using _rogue = rogue;
  let answers = 0;
  rogue.nc.subscribe(subjects.agent("a1", "revoke"), {
    callback: () => {
      answers++;
    },
  });
  const subject = subjects.progress("a1", job.id);
  const report = (i: number): Progress => ({
    ...{ v: 1, kind: "progress", jobId: job.id, campaign: job.campaign, attempt: 1, agentId: "a1" },
    ...{ leaseToken: lease.token + 7, phase: `phase ${i}`, at: 1000 + i },
  });
  for (let i = 0; i < 5_000; i++) rogue.nc.publish(subject, encode(Progress, report(i), subject));
  for (let i = 0; i < 100; i++) await rogue.register({ ...rogue.info, host: `host-${i}` });
  const last = { ...rogue.info, host: "the-last" };
  await rogue.register(last);
  const changes = () => real.reports.filter((r) => r.event === "agent.changed").length;
  await using client = await real.client();
  const host = async () => (await client.status()).agents[0]?.host;
  await expect.poll(host, { timeout: 10_000 }).toBe("the-last");
  expect(changes()).toBeLessThan(30);
  expect(answers).toBeGreaterThan(0);
  expect(answers).toBeLessThan(2_500);
});
