import { join } from "node:path";
import { expect, test, vi } from "vitest";
import type { Outcome } from "@vibeserve/shared";
import type { CampaignActor } from "../../coordinator/src/campaign/campaign.actor.ts";
import { championsOf } from "../../coordinator/src/findings/champions.ts";
import { changeChannel, readChannel } from "../../coordinator/src/release/channel.ts";
import { FakeAgent } from "../kit/fake-agent.ts";
import { factOf, startCoordinator, POOL, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

vi.setConfig({ testTimeout: 120_000 });

const wrong: Outcome = {
  status: "checked",
  seconds: 0.1,
  report: {
    ok: false,
    level: "screen",
    gates: [{ name: "mean KL", value: 3, unit: "nat", limit: "<= 0.001", ok: false }],
    positions: 500,
    servedTokens: 100,
    firstFailure: null,
  },
};

const trials = (real: RealCoordinator): CampaignActor[] => real.coordinator.campaigns.list().filter((a) => a.state.options.trial);

test("an agent that comes back with another compiler has its champion tested again; what does not hold is taken out of its channel, with the reason", async () => {
  using dir = tempDir("requalify");
  await using real = await startCoordinator(dir.path, { requalify: "auto" });
  const data = join(dir.path, "data");
  const seed = await real.enroll("a1");
  const compiled = (agent: FakeAgent, version: string) =>
    agent.register({ ...agent.info, tools: [{ name: "c++", version, digest: null }] });
  let actor: CampaignActor;
  {
    await using agent = await FakeAgent.start({ url: real.coordinator.broker.url, agentId: "a1", seed, pool: POOL });
    actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
    expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
    const [champion] = championsOf([actor.state]);
    if (!champion) throw new Error("no champion");
    changeChannel(data, "stable", () => ({
      action: "promote",
      release: champion.release,
      exportedTo: null,
      at: Date.now(),
      reason: "r",
      overridden: null,
    }));
    expect(trials(real)).toEqual([]);

    // Another compiler, which builds it as well.
    await compiled(agent, "13");
    await real.reported("requalify.submitted");
    const [trial] = trials(real);
    if (!trial) throw new Error("no trial");
    expect(await factOf(real, trial, "campaign.ended")).toMatchObject({
      outcome: "proven",
      reason: expect.stringMatching(/is still-good \(tested for toolchain\)/) as string,
    });
    const [x] = trial.state.experiments;
    expect(x?.git?.treeDigest).toBe(champion.release.treeDigest);
    expect(readChannel(data, "stable").history).toHaveLength(1);
  }

  // A third, with which it answers wrongly.
  await using agent = await FakeAgent.start({
    ...{ url: real.coordinator.broker.url, agentId: "a1", seed, pool: POOL },
    work: async (job, lease) => (job.spec.kind === "check" && job.experiment !== "seed" ? wrong : agent.outcome(job, lease)),
  });
  const rolledBack = real.reported("channel.rolled-back");
  await compiled(agent, "14");
  expect(await rolledBack).toMatchObject({ channels: ["stable"] });
  const { current, history } = readChannel(data, "stable");
  expect(history).toHaveLength(2);
  expect(current).toMatchObject({
    action: "rollback",
    release: { champion: { experimentId: "seed" } },
    reason: expect.stringMatching(/rolled-back to the seed .*mean KL is 3/) as string,
  });
  // Whatever else changes, it is not tested again with what it was tested with.
  const before = trials(real).length;
  const changed = real.reported("agent.changed");
  await agent.register({ ...agent.info, host: "renamed", tools: [{ name: "c++", version: "14", digest: null }] });
  await changed;
  await real.coordinator.submit({ ...tinyTarget, name: "other" }, { baselines: [], repeat: null }).then((a) => a.cancel("enough"));
  expect(trials(real)).toHaveLength(before);
});
