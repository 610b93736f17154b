import { expect, test } from "vitest";
import { jetstreamManager } from "@nats-io/jetstream";
import {
  Assignment,
  builderDevice,
  CampaignEvent,
  decode,
  LeaseRevoked,
  subjects,
  type Job,
  type JobResult,
  type Lease,
  type Measurement,
  type Outcome,
} from "@vibeserve/shared";
import type { CampaignActor } from "../../coordinator/src/campaign/campaign.actor.ts";
import { signedBy } from "../../coordinator/src/fleet/signature.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import type { FakeAgent } from "../kit/fake-agent.ts";
import { Assignments, type Assigned } from "../../gpu-agent/src/bus/assignments.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const options = { baselines: [], repeat: null };

/** A campaign whose first job (the seed's build) an agent has leased and does not answer. */
async function leased(real: RealCoordinator, agentId = "a1"): Promise<{ actor: CampaignActor; agent: FakeAgent; job: Job; lease: Lease }> {
  const got = Promise.withResolvers<{ job: Job; lease: Lease }>();
  const agent = await real.agent(agentId, {
    work: async (job, lease) => {
      got.resolve({ job, lease });
      return "silent";
    },
  });
  const actor = await real.coordinator.submit(tinyTarget, options);
  return { actor, agent, ...(await got.promise) };
}

/** What stands under a device's key, with the sequence that is its token. */
async function stored(real: RealCoordinator, agentId: string, deviceId: string): Promise<Assignment & { token: number }> {
  const agent = await real.connect(agentId);
  const key = subjects.assignment(agentId, deviceId);
  const message = await (await jetstreamManager(agent, { checkAPI: false })).direct.getMessage("KV_vs-leases", { last_by_subj: key });
  await agent.close();
  if (!message) throw new Error(`nothing under ${key}`);
  return { ...decode(Assignment, message.data, key), token: message.seq };
}

const settled = (real: RealCoordinator, actor: CampaignActor, of: (r: JobResult) => boolean) =>
  factOf(real, actor, "job.settled", (fact) => of(fact.result));

test("a result with an old fencing token is kept as evidence and changes nothing", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  const outcome = await agent.outcome(job, lease);
  await agent.publish(agent.signed(job, lease, outcome, { leaseToken: lease.token + 1 }));
  const stale = await settled(real, actor, (r) => r.leaseToken === lease.token + 1);
  expect(stale).toMatchObject({ accepted: false, why: `lease token ${lease.token + 1} is not the current one, ${lease.token}` });
  expect(actor.state.ledger[job.id]?.status).toBe("open");
  await agent.publish(agent.signed(job, lease, outcome));
  expect(await settled(real, actor, (r) => r.leaseToken === lease.token)).toMatchObject({ accepted: true });
});

test("the same result twice is recorded once; another answer to an answered job is evidence", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  const good = agent.signed(job, lease, await agent.outcome(job, lease));
  await agent.publish(good);
  await agent.publish(good);
  const late = agent.signed(job, lease, {
    status: "failed",
    failure: { attribution: "candidate", code: "late", message: "second thoughts", logTail: "" },
  });
  await agent.publish(late);
  const evidence = await settled(real, actor, (r) => r.sig === late.sig);
  expect(evidence).toMatchObject({ accepted: false, why: `attempt 1 of job ${job.id} is over` });
  const facts = actor.events.map((e) => e.event.fact).filter((f) => f.type === "job.settled" && f.result.sig === good.sig);
  expect(facts).toHaveLength(1);
  expect(actor.state.ledger[job.id]?.outcome?.status).toBe("built");
});

test("a result that its agent did not sign is thrown away", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  const refused = real.reported("result.refused");
  const forged = agent.signed(job, lease, await agent.outcome(job, lease));
  await agent.publish({ ...forged, endedAt: forged.endedAt + 1 });
  expect((await refused)["why"]).toBe("its signature is not that of agent a1");
  expect(actor.events.some((e) => e.event.fact.type === "job.settled")).toBe(false);
});

/** The first job that measures, leased to an agent that answers every other, and what it honestly measured. */
async function measuring(
  real: RealCoordinator,
): Promise<{ actor: CampaignActor; agent: FakeAgent; job: Job; lease: Lease; outcome: Extract<Outcome, { status: "measured" }> }> {
  const got = Promise.withResolvers<{ job: Job; lease: Lease }>();
  const agent: FakeAgent = await real.agent("a1", {
    work: async (job, lease) => {
      if (job.spec.kind !== "bench") return agent.outcome(job, lease);
      got.resolve({ job, lease });
      return "silent";
    },
  });
  const actor = await real.coordinator.submit(tinyTarget, options);
  const { job, lease } = await got.promise;
  const outcome = await agent.outcome(job, lease);
  if (outcome.status !== "measured") throw new Error("a bench job measures");
  return { actor, agent, job, lease, outcome };
}

test("a measurement that its agent did not sign makes the whole result one that is thrown away", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease, outcome } = await measuring(real);
  await using _ = agent;
  for (const arm of ["challenger", "champion"] as const) {
    const refused = real.reported("result.refused");
    const better = { ...outcome, [arm]: { ...outcome[arm], value: 2 * outcome[arm].value } };
    await agent.publish(agent.signed(job, lease, better));
    expect((await refused)["why"]).toBe(`its ${arm}'s measurement's signature is not that of agent a1`);
  }
  await agent.publish(agent.signed(job, lease, outcome));
  expect(await settled(real, actor, (r) => r.jobId === job.id)).toMatchObject({ accepted: true, result: { outcome } });
});

test("what a later version adds to a certificate is accepted, signed as it is, and kept in the log", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease, outcome } = await measuring(real);
  await using _ = agent;
  const later = (m: Measurement): Measurement => {
    const { sig: _old, ...rest } = m;
    const body = { ...rest, certificate: { ...m.certificate, throttled: { pct: 0, source: "msr" } } };
    return { ...body, sig: agent.sign(body) };
  };
  const result = agent.signed(job, lease, { ...outcome, challenger: later(outcome.challenger), champion: later(outcome.champion) });
  await agent.publish(result);
  expect(await settled(real, actor, (r) => r.jobId === job.id)).toMatchObject({ accepted: true });
  const stored = actor.events.map(({ bytes }) => decode(CampaignEvent, bytes, "the log").fact);
  const [kept, ...more] = stored.flatMap((fact) => (fact.type === "job.settled" && fact.result.jobId === job.id ? [fact.result] : []));
  expect([kept, more]).toEqual([result, []]);
  expect(kept && signedBy(agent.info.publicKey, kept)).toBe(true);
});

test("an agent that falls silent loses its lease; the job is tried again and its late answer is evidence", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path, { leaseTtlMs: 400 });
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  const expired = await factOf(real, actor, "job.expired");
  expect(expired).toMatchObject({ jobId: job.id, attempt: 1, why: expect.stringMatching(/agent a1 was silent for/) as string });
  await factOf(real, actor, "job.requested", (f) => f.job.id === job.id && f.job.attempt === 2);
  const late = agent.signed(job, lease, await agent.outcome(job, lease));
  await agent.publish(late);
  expect(await settled(real, actor, (r) => r.sig === late.sig)).toMatchObject({ accepted: false });
});

test("progress keeps a lease alive beyond its ttl, a token that is not the current one does not", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path, { leaseTtlMs: 600 });
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  const beat = setInterval(() => agent.report(job, lease), 100);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(actor.events.some((e) => e.event.fact.type === "job.expired")).toBe(false);
  clearInterval(beat);
  const wrong = setInterval(() => agent.report(job, { ...lease, token: lease.token + 1 }), 100);
  await factOf(real, actor, "job.expired");
  clearInterval(wrong);
});

test("an agent that was restarted has lost what its predecessor held, at once", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job } = await leased(real);
  await agent[Symbol.asyncDispose]();
  await using again = await real.agent("a1");
  expect(await factOf(real, actor, "job.expired")).toMatchObject({ jobId: job.id, attempt: 1, why: "agent a1 was restarted" });
  expect(await settled(real, actor, (r) => r.jobId === job.id)).toMatchObject({ accepted: true, result: { attempt: 2 } });
  expect(again.leases[0]?.token).toBeGreaterThan(0);
});

test("tokens rise with every grant, and what was given out twice is one lease", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  expect(await stored(real, "a1", lease.deviceId)).toMatchObject({ token: lease.token, job });
  await agent.publish(agent.signed(job, lease, await agent.outcome(job, lease)));
  await factOf(real, actor, "job.requested", (f) => f.job.id !== job.id);
  await expect.poll(() => agent.leases.length).toBeGreaterThan(1);
  expect(agent.leases[1]?.token).toBeGreaterThan(lease.token);
});

test("an agent that works on what it does not hold is told to stop", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { agent, job, lease } = await leased(real);
  await using _ = agent;
  const revoked: LeaseRevoked[] = [];
  agent.nc.subscribe("vs.agent.a1.revoke", { callback: (_e, m) => void revoked.push(decode(LeaseRevoked, m.data, m.subject)) });
  await agent.nc.flush();
  agent.report(job, lease);
  agent.report(job, { ...lease, token: lease.token + 1 });
  agent.report({ ...job, id: "never-asked-for" }, lease);
  await expect
    .poll(() => revoked.map((r) => [r.jobId, r.token]))
    .toEqual([
      [job.id, lease.token + 1],
      ["never-asked-for", lease.token],
    ]);
});

test("what was assigned while an agent was cut off is found when it connects again; what another life was given is left alone", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { agent, job, lease } = await leased(real);
  await using _ = agent;
  const look = async (startedAt: number) => {
    const found: Assigned[] = [];
    const devices = [agent.device.id, builderDevice("a1")];
    const of = { nc: agent.nc, agentId: "a1", startedAt, devices, refused: (why: string) => expect.fail(why) };
    const assignments = new Assignments({ ...of, take: (assigned) => void found.push(assigned) });
    await assignments.look();
    await assignments.look();
    return found;
  };
  expect(await look(agent.info.startedAt)).toEqual([{ job, lease, devices: [lease.deviceId] }]);
  expect(await look(agent.info.startedAt + 1)).toEqual([]);
});

test("a paused campaign starts nothing, takes the answer to what runs, and goes on when resumed", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  expect(await actor.pause("test")).toBe(true);
  expect(await actor.pause("test")).toBe(false);
  await agent.publish(agent.signed(job, lease, await agent.outcome(job, lease)));
  await settled(real, actor, (r) => r.jobId === job.id);
  expect(actor.events.filter((e) => e.event.fact.type === "job.requested")).toHaveLength(1);
  expect(await actor.resume("test")).toBe(true);
  await factOf(real, actor, "job.requested", (f) => f.job.id !== job.id);
});

test("a cancelled campaign tells its agent to stop and drops its jobs", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  const revoked = new Promise((resolve) => agent.nc.subscribe("vs.agent.a1.revoke", { callback: (_e, m) => resolve(m.data.length) }));
  await agent.nc.flush();
  expect(await actor.cancel("test")).toBe(true);
  expect(await revoked).toBeGreaterThan(0);
  const late = agent.signed(job, lease, await agent.outcome(job, lease));
  await agent.publish(late);
  expect(await settled(real, actor, (r) => r.sig === late.sig)).toMatchObject({ accepted: false });
});

test("two campaigns share a device: both end, neither waits for the other's end", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const [one, two] = [
    await real.coordinator.submit(tinyTarget, options),
    await real.coordinator.submit({ ...tinyTarget, name: "other" }, options),
  ];
  await using agent = await real.agent("a1");
  await Promise.all([one.ended, two.ended]);
  expect([one.state.ended?.outcome, two.state.ended?.outcome]).toEqual(["proven", "proven"]);
  const turns = agent.leases.map((l) => l.jobId.startsWith(one.id));
  expect(turns.lastIndexOf(true)).toBeGreaterThan(turns.indexOf(false));
  expect(turns.lastIndexOf(false)).toBeGreaterThan(turns.indexOf(true));
});

test("after a broker restart agents are still heard, progress and leases still work, and results still arrive", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  const back = real.reported("broker.started");
  process.kill(real.coordinator.broker.pid ?? 0, "SIGKILL");
  await back;
  const changed = real.reported("agent.changed");
  await expect
    .poll(
      () =>
        agent.register({ ...agent.info, state: "draining" }).then(
          () => true,
          () => false,
        ),
      { timeout: 10_000 },
    )
    .toBe(true);
  expect((await changed)["state"]).toBe("draining");
  await agent.register();
  await agent.publish(agent.signed(job, lease, await agent.outcome(job, lease)));
  expect(await settled(real, actor, (r) => r.jobId === job.id)).toMatchObject({ accepted: true });
});

test("an agent that leaves in good order costs its job no attempt; its old token counts no more", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path);
  const { actor, agent, job, lease } = await leased(real);
  await agent.withdraw();
  await expect.poll(() => real.reports.some((r) => r.event === "lease.returned")).toBe(true);
  const old = agent.signed(job, lease, await agent.outcome(job, lease));
  await agent.publish(old);
  expect(await settled(real, actor, (r) => r.sig === old.sig)).toMatchObject({
    accepted: false,
    why: `no lease is live on device ${lease.deviceId}`,
  });
  await agent[Symbol.asyncDispose]();
  await using again = await real.agent("a1");
  const good = await settled(real, actor, (r) => r.jobId === job.id && r.sig !== old.sig);
  expect(good).toMatchObject({ accepted: true, result: { attempt: 1 } });
  expect(good.result.leaseToken).toBeGreaterThan(lease.token);
  expect(again.leases[0]).toMatchObject({ jobId: job.id, attempt: 1 });
  expect(actor.events.some((e) => e.event.fact.type === "job.expired")).toBe(false);
});

test("time in which the coordinator itself stood still, as on a machine that slept, costs nobody a lease", async () => {
  using dir = tempDir("fleet");
  await using real = await startCoordinator(dir.path, { leaseTtlMs: 600 });
  const { actor, agent, job, lease } = await leased(real);
  await using _ = agent;
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_500);
  await agent.publish(agent.signed(job, lease, await agent.outcome(job, lease)));
  expect(await settled(real, actor, (r) => r.jobId === job.id)).toMatchObject({ accepted: true });
  expect(actor.events.some((e) => e.event.fact.type === "job.expired")).toBe(false);
  expect(real.reports.some((r) => r.event === "lease.stood-still")).toBe(true);
});
