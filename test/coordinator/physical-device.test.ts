import { createUser } from "@nats-io/nkeys";
import { AgentsPage, AgentsRequest, ExplainRequest, Explained, type Device } from "@vibeserve/shared";
import { expect, test } from "vitest";
import type { FakeAgent } from "../kit/fake-agent.ts";
import { simulatedDevice } from "../kit/fake-outcomes.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const options = { baselines: [], repeat: null };
const gpu = (agentId: string, name: string, labels: Record<string, string> = {}): Device => ({
  ...simulatedDevice(agentId),
  id: `${agentId}-${name}`,
  kind: "nvidia",
  labels: { "vibeserve.dev/device.kind": "nvidia", ...labels },
});
const row = async (real: RealCoordinator, agentId: string) => {
  await using client = await real.client();
  const page = await client.ask("agents", AgentsRequest, { v: 1, kind: "agents.request", after: null }, AgentsPage);
  return page.agents.find((a) => a.agentId === agentId);
};

test("one GPU that two agents register is given work through the first; the other is told so, and has it once the first is gone", async () => {
  using dir = tempDir("twice");
  await using real = await startCoordinator(dir.path, { settings: { canary: "off" } });
  const given: [string, string][] = [];
  const works = async (agentId: string): Promise<FakeAgent> => {
    const agent: FakeAgent = await real.agent(agentId, {
      work: async (job, lease) => {
        given.push([job.spec.kind, lease.deviceId]);
        return job.spec.kind === "build" ? agent.outcome(job, lease) : "silent";
      },
    });
    // As two containers on one node would: other ids, other machines for all that they know, and the same card.
    const uuid = { "vibeserve.dev/gpu.uuid": "GPU-b42dd28e-ffdd-43a1-8a11-0123456789ab" };
    const machine = (agentId === "a1" ? "1" : "2").repeat(64);
    await agent.register({ ...agent.info, machine, devices: [gpu(agentId, "gpu-b42dd28e", uuid)] });
    return agent;
  };
  const one = await works("a1");
  await using _two = await works("a2");
  await expect.poll(async () => (await row(real, "a2"))?.note).toMatch(/a2-gpu-b42dd28e is a device of agent a1 too, which gets its work/);
  expect(await row(real, "a2")).toMatchObject({ state: "ready", devices: [] });
  expect(await row(real, "a1")).toMatchObject({ note: null, devices: [{ id: "a1-gpu-b42dd28e" }] });
  // Two campaigns want it at once, and one has it.
  const target = { ...tinyTarget, device: { "vibeserve.dev/device.kind": "nvidia" } };
  const actors = [await real.coordinator.submit(target, options), await real.coordinator.submit(target, options)];
  await Promise.all(actors.map(async (a) => factOf(real, a, "job.requested", (f) => f.job.spec.kind === "check")));
  await expect.poll(() => given.filter(([kind]) => kind === "check")).toEqual([["check", "a1-gpu-b42dd28e"]]);
  // The first leaves: what it has goes to the other, and only there.
  await one.withdraw();
  await one[Symbol.asyncDispose]();
  await expect.poll(() => given.filter(([kind]) => kind === "check").at(-1)).toEqual(["check", "a2-gpu-b42dd28e"]);
  expect(await row(real, "a2")).toMatchObject({ note: null, devices: [{ id: "a2-gpu-b42dd28e" }] });
  expect(given.filter(([kind, device]) => kind === "check" && device.startsWith("a2"))).toHaveLength(1);
});

test("an agent with two kinds of devices has each in its own pool: campaigns are bound, built for, measured and explained by that", async () => {
  using dir = tempDir("kinds");
  await using real = await startCoordinator(dir.path, { settings: { canary: "off" } });
  const key = createUser();
  const seed = new TextDecoder().decode(key.getSeed());
  await real.coordinator.enroll({ agentId: "a1", publicKey: key.getPublicKey(), pools: ["nvidia-h100", "nvidia-l4"] });
  const agent = await real.agentWith("a1", seed);
  await using _agent = agent;
  const kinds = ["h100", "l4"].map((kind) => gpu("a1", kind, { "vibeserve.dev/pool": `nvidia-${kind}`, "test/kind": kind }));
  await agent.register({ ...agent.info, pools: ["nvidia-h100", "nvidia-l4"], devices: kinds });
  const targets = ["l4", "h100"].map((kind) => ({ ...tinyTarget, name: kind, device: { "test/kind": kind } }));
  const actors = await Promise.all(targets.map(async (target) => real.coordinator.submit(target, options)));
  await Promise.all(actors.map(async (actor) => actor.ended));
  expect(actors.map((a) => [a.state.device?.id, a.state.ended?.outcome])).toEqual([
    ["a1-l4", "proven"],
    ["a1-h100", "proven"],
  ]);
  for (const [i, actor] of actors.entries()) {
    const kind = targets[i]?.name ?? "";
    const facts = actor.events.map(({ event: { fact } }) => fact);
    const asked = facts.flatMap((f) => (f.type === "job.requested" ? [f.job] : []));
    const answered = facts.flatMap((f) =>
      f.type === "job.settled" ? [[asked.find((j) => j.id === f.result.jobId), f.result] as const] : [],
    );
    expect(new Set(asked.map((j) => j.pool))).toEqual(new Set([`nvidia-${kind}`]));
    for (const [job, result] of answered) expect(result.deviceId).toBe(job?.spec.kind === "build" ? "a1-builder" : `a1-${kind}`);
  }
  await using client = await real.client();
  const waiting = await real.coordinator.submit({ ...tinyTarget, device: { "test/kind": "l4" } }, options);
  const { job } = await factOf(real, waiting, "job.requested", (f) => f.job.spec.kind === "check");
  const explained = await client.ask("explain", ExplainRequest, { v: 1, kind: "explain.request", job: job.id }, Explained);
  expect(JSON.stringify(explained)).not.toContain("a1-h100");
});
