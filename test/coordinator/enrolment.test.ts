import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { createAccount, createUser } from "@nats-io/nkeys";
import { jetstream } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import {
  AgentDecided,
  AgentDecision,
  AgentsPage,
  AgentsRequest,
  encode,
  JobResult,
  subjects,
  type AgentRow,
  type Job,
  type Lease,
} from "@vibeserve/shared";
import { expect, test } from "vitest";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { askToJoin, dialJoiner, joinLine, lineOf, newcomer, type LineChoice, type Newcomer } from "../kit/joiner.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

/** A person at the coordinator, and a node that dials it. */
async function desk(real: RealCoordinator) {
  const client = await real.client();
  const open: NatsConnection[] = [];
  const dial = async (line: string) => {
    const nc = await dialJoiner(lineOf(line));
    open.push(nc);
    return nc;
  };
  return {
    token: async (more: LineChoice = {}) => (await joinLine(client, { ttlMs: 60_000, ...more })).line,
    decide: async (agentId: string, decision: "approve" | "refuse" | "revoke") =>
      client.ask("agent-decide", AgentDecision, { v: 1, kind: "agent.decision", agentId, decision, reason: "by hand" }, AgentDecided),
    rows: async (): Promise<AgentRow[]> =>
      (await client.ask("agents", AgentsRequest, { v: 1, kind: "agents.request", after: null }, AgentsPage)).agents,
    join: async (line: string, who: Newcomer) => askToJoin(await dial(line), who, { kind: "token", token: lineOf(line).token ?? "" }),
    stands: async (line: string, who: Newcomer) => askToJoin(await dial(line), who, { kind: "none" }),
    [Symbol.asyncDispose]: async () => {
      for (const nc of open) await nc.close();
      await client[Symbol.asyncDispose]();
    },
  };
}

const LABELS = { "vibeserve.dev/device.kind": "cpu" };
const dialAgent = (real: RealCoordinator, who: Newcomer) =>
  connectBus({ servers: [real.coordinator.broker.url], seed: who.seed, principal: who.info.agentId });

test("a node joins by hand: it waits, is listed, is approved, and dials with its own key; the token is on disk as a hash only", async () => {
  using dir = tempDir("enrolment");
  await using real = await startCoordinator(dir.path);
  await using at = await desk(real);
  const line = await at.token({ pool: "fast" });
  const who = newcomer("node-1");
  await expect(dialAgent(real, who)).rejects.toThrow(/Authorization Violation/);
  expect(await at.join(line, who)).toMatchObject({ kind: "join.waiting" });
  expect(await at.rows()).toMatchObject([
    { agentId: "node-1", state: "waiting", pools: ["fast"], version: "0.0.0", devices: [{ simulated: true }] },
  ]);
  await at.decide("node-1", "approve");
  expect(await at.join(line, who)).toMatchObject({ kind: "join.approved", pools: ["fast"] });
  await (await dialAgent(real, who)).close();
  expect(await at.rows()).toMatchObject([{ agentId: "node-1", state: "away", pools: ["fast"], since: expect.any(Number) as number }]);
  const file = join(dir.path, "data/nats/keys/enrolment.json");
  expect(readFileSync(file, "utf8")).not.toContain(lineOf(line).token);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(JSON.stringify(real.reports)).not.toContain(lineOf(line).token);
});

test("of two uses of one token at the same time one wins; the loser hears why, and so does a third after a restart", async () => {
  using dir = tempDir("enrolment");
  let line = "";
  const both = [newcomer("node-1"), newcomer("node-2")] as const;
  let winner: Newcomer = both[0];
  {
    await using real = await startCoordinator(dir.path);
    await using at = await desk(real);
    line = await at.token({ labels: LABELS });
    const replies = await Promise.all(both.map((who) => at.join(line, who)));
    expect(replies.map((r) => r.kind).sort()).toEqual(["join.approved", "join.refused"]);
    const won = replies.findIndex((r) => r.kind === "join.approved");
    winner = both[won] ?? winner;
    expect(replies[1 - won]).toMatchObject({ reason: expect.stringMatching(/used already, by another key/) as string });
  }
  await using again = await startCoordinator(dir.path);
  await using at = await desk(again);
  // The port is another one after a restart.
  const moved = line.replace(/:\d+#/, `:${new URL(again.coordinator.broker.url).port}#`);
  expect(await at.join(moved, newcomer("node-3"))).toMatchObject({ kind: "join.refused" });
  expect(await at.join(moved, winner)).toMatchObject({ kind: "join.approved" });
});

test("labels that the device lacks are named, and the token still works on the right node; an expired token and a made-up one do not", async () => {
  using dir = tempDir("enrolment");
  await using real = await startCoordinator(dir.path);
  await using at = await desk(real);
  const line = await at.token({ labels: { "vibeserve.dev/fits": "yes" } });
  const [wrong, right] = [newcomer("wrong"), newcomer("right")];
  for (const device of right.info.devices) device.labels = { ...device.labels, "vibeserve.dev/fits": "yes" };
  expect(await at.join(line, wrong)).toMatchObject({
    kind: "join.refused",
    reason: expect.stringMatching(/vibeserve.dev\/fits=yes \(it has none\)/) as string,
  });
  expect(await at.join(line, right)).toMatchObject({ kind: "join.approved" });
  const short = await at.token({ labels: LABELS, ttlMs: 1000 });
  await new Promise((resolve) => setTimeout(resolve, 1100));
  const unknown = { kind: "join.refused", reason: expect.stringMatching(/not known, or has expired/) as string };
  expect(await at.join(short, wrong)).toMatchObject(unknown);
  expect(await at.join(short.replace(/#.{43}/, `#${"A".repeat(43)}`), wrong)).toMatchObject(unknown);
});

test("an id belongs to one key; a question is believed with its own key's signature only", async () => {
  using dir = tempDir("enrolment");
  await using real = await startCoordinator(dir.path);
  await using at = await desk(real);
  expect(await at.join(await at.token({ labels: LABELS }), newcomer("node-1"))).toMatchObject({ kind: "join.approved" });
  const line = await at.token({ labels: LABELS });
  const thief = await at.join(line, newcomer("node-1"));
  expect(thief).toMatchObject({ kind: "join.refused", reason: expect.stringMatching(/agent id node-1 belongs to another key/) as string });
  const { token } = lineOf(line);
  const nc = await dialJoiner(lineOf(line));
  const forged = await askToJoin(nc, newcomer("node-2"), { kind: "token", token: token ?? "" }, createUser());
  expect(forged).toMatchObject({ kind: "join.refused", reason: expect.stringMatching(/not signed/) as string });
  await nc.close();
});

test("refused by hand: the agent hears why; a new token may let it in", async () => {
  using dir = tempDir("enrolment");
  await using real = await startCoordinator(dir.path);
  await using at = await desk(real);
  const [line, who] = [await at.token(), newcomer("node-1")];
  await at.join(line, who);
  await expect(at.decide("node-1", "revoke")).rejects.toThrow(/not enrolled: refuse it/);
  await at.decide("node-1", "refuse");
  expect(await at.join(line, who)).toMatchObject({
    kind: "join.refused",
    reason: expect.stringMatching(/it was refused at .*: by hand/) as string,
  });
  expect(await at.join(await at.token({ labels: LABELS }), who)).toMatchObject({ kind: "join.approved" });
  await expect(at.decide("nobody", "approve")).rejects.toThrow(/does not wait/);
});

test("revoked: the server closes its connection at once and others' stay; its entry is gone, its key never comes back, its id may with another", async () => {
  using dir = tempDir("enrolment");
  await using real = await startCoordinator(dir.path);
  await using at = await desk(real);
  const stays = await real.agent("stays");
  let disturbed = false;
  void (async () => {
    for await (const status of stays.nc.status()) disturbed ||= status.type === "disconnect";
  })();
  const line = await at.token({ labels: LABELS });
  const who = newcomer("node-1");
  await at.join(line, who);
  const registered = real.reported("agent.joined");
  const agent = await real.agentWith("node-1", who.seed);
  await registered;
  const turnedAway = (async () => {
    for await (const status of agent.nc.status()) if (status.type === "error") return status.error.message;
    return "";
  })();
  const left = real.reported("agent.withdrawn");
  await at.decide("node-1", "revoke");
  expect(await turnedAway).toMatch(/Authorization Violation/);
  expect(await left).toMatchObject({ agentId: "node-1" });
  await expect(dialAgent(real, who)).rejects.toThrow(/Authorization Violation/);
  const out = { kind: "join.refused", reason: expect.stringMatching(/this key was revoked at .*: by hand/) as string };
  expect(await at.stands(line, who)).toMatchObject(out);
  expect(await at.join(await at.token({ labels: LABELS }), who)).toMatchObject(out);
  await expect(real.coordinator.enroll({ agentId: "node-1", publicKey: who.info.publicKey, pools: ["local"] })).rejects.toThrow(/revoked/);
  expect((await at.rows()).find((r) => r.agentId === "node-1")).toMatchObject({ state: "revoked", note: "by hand" });
  // Asked again it changes nothing.
  await at.decide("node-1", "revoke");
  expect(await at.join(await at.token({ labels: LABELS }), newcomer("node-1"))).toMatchObject({ kind: "join.approved" });
  await stays.nc.flush();
  expect(disturbed).toBe(false);
  await agent[Symbol.asyncDispose]();
  await stays[Symbol.asyncDispose]();
});

test("what a revoked agent holds is void: its job goes to another, and what it had signed before is kept as evidence", async () => {
  using dir = tempDir("enrolment");
  await using real = await startCoordinator(dir.path);
  await using at = await desk(real);
  const got = Promise.withResolvers<{ job: Job; lease: Lease }>();
  const agent = await real.agent("a1", {
    work: async (job, lease) => {
      got.resolve({ job, lease });
      return "silent";
    },
  });
  const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
  const { job, lease } = await got.promise;
  const late = agent.signed(job, lease, await agent.outcome(job, lease));
  await at.decide("a1", "revoke");
  expect(await factOf(real, actor, "job.expired")).toMatchObject({ jobId: job.id, attempt: 1, why: "agent a1 was revoked: by hand" });
  // It was on its way when the agent was put out.
  const { broker } = real.coordinator;
  const nc = await connectBus({ servers: [broker.url], seed: broker.seeds.coordinator, principal: "coordinator" });
  await jetstream(nc).publish(subjects.result("a1", job.campaign), encode(JobResult, late, "test"));
  const settled = await factOf(real, actor, "job.settled");
  expect(settled).toMatchObject({ accepted: false, result: { agentId: "a1", sig: late.sig } });
  const other = await real.agent("a2");
  const answered = await factOf(real, actor, "job.settled", (fact) => fact.result.agentId === "a2" && fact.result.jobId === job.id);
  expect(answered).toMatchObject({ accepted: true, result: { attempt: 2 } });
  await other[Symbol.asyncDispose]();
  await nc.close();
  await agent[Symbol.asyncDispose]();
});

test("a key that is none is refused before the broker would have to read it, and others still come in", async () => {
  using dir = tempDir("enrolment");
  await using real = await startCoordinator(dir.path);
  await using at = await desk(real);
  const account = createAccount();
  const typo = (key: string) => `${key.slice(0, -1)}${key.endsWith("A") ? "B" : "A"}`;
  const mistyped = newcomer("node-2");
  mistyped.info.publicKey = typo(mistyped.info.publicKey);
  for (const who of [newcomer("node-1", account), mistyped])
    expect(await at.join(await at.token({ labels: LABELS }), who)).toMatchObject({
      kind: "join.refused",
      reason: expect.stringMatching(/not signed/) as string,
    });
  expect(await real.coordinator.enroll({ agentId: "node-3", publicKey: mistyped.info.publicKey, pools: ["local"] })).toBe(false);
  expect(await at.join(await at.token({ labels: LABELS }), newcomer("node-4"))).toMatchObject({ kind: "join.approved" });
});

test("many nodes that join at once are all in, and the broker reads them together", async () => {
  using dir = tempDir("enrolment");
  await using real = await startCoordinator(dir.path);
  await using at = await desk(real);
  const lines = await Promise.all(Array.from({ length: 100 }, () => at.token({ labels: LABELS })));
  const nodes = lines.map((_, i) => newcomer(`node-${i}`));
  const replies = await Promise.all(nodes.map(async (who, i) => at.join(lines[i] ?? "", who)));
  expect(new Set(replies.map((r) => r.kind))).toEqual(new Set(["join.approved"]));
  for (const who of nodes) await (await dialAgent(real, who)).close();
  const read = readFileSync(join(dir.path, "data/logs/nats.log"), "utf8").match(/Reloaded server configuration/g)?.length ?? 0;
  expect(read).toBeGreaterThan(0);
  expect(read).toBeLessThan(100);
});
