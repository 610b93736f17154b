import { jetstream } from "@nats-io/jetstream";
import { AgentsPage, AgentsRequest, BUCKETS, type AgentInfo } from "@vibeserve/shared";
import { Packr } from "msgpackr";
import { expect, test } from "vitest";
import type { FakeAgent } from "../kit/fake-agent.ts";
import { startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const packr = new Packr({ useRecords: false });

/** Writes an agent's entry as a release would that this one knows nothing of. */
async function registers(agent: FakeAgent, info: AgentInfo & Record<string, unknown>): Promise<void> {
  await jetstream(agent.nc).publish(`$KV.${BUCKETS.agents}.${agent.info.agentId}.info`, packr.pack(info));
}

async function row(real: RealCoordinator) {
  await using client = await real.client();
  const { agents } = await client.ask("agents", AgentsRequest, { v: 1, kind: "agents.request", after: null }, AgentsPage);
  return agents[0];
}

test.each([
  [
    "of the next protocol",
    { protocol: 2 },
    /release 0\.2\.0, speaks protocol 2; install one release on both: this coordinator speaks protocol 1/,
  ],
  [
    "that says what this release does not know",
    { slices: 7 },
    /release 0\.2\.0, says what this release does not know \(.*slices.*\); install one release/,
  ],
])(
  "an agent %s is listed as incompatible with what to do, gets no work, and works once both are of one release",
  async (_what, more, note) => {
    using dir = tempDir("skew");
    await using real = await startCoordinator(dir.path);
    await using agent = await real.agent("a1");
    await registers(agent, { ...agent.info, version: "0.2.0", ...more });
    await expect.poll(async () => (await row(real))?.state).toBe("incompatible");
    expect(await row(real)).toMatchObject({ version: "0.2.0", devices: [], note: expect.stringMatching(note) as string });
    const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
    await expect.poll(() => actor.waits[0]).toMatch(/waits for a ready agent/);
    expect(agent.leases).toEqual([]);
    await agent.register();
    await actor.ended;
    expect(actor.state.ended?.outcome).toBe("proven");
    expect((await row(real))?.state).toBe("ready");
  },
);

test("an agent of the release before, which says no protocol, works; so does one that says the coordinator's", async () => {
  using dir = tempDir("skew");
  await using real = await startCoordinator(dir.path);
  await using agent = await real.agent("a1");
  expect(agent.info.protocol).toBeUndefined();
  await registers(agent, { ...agent.info, version: "0.0.9", protocol: 1 });
  const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
  await actor.ended;
  expect(actor.state.ended?.outcome).toBe("proven");
  expect(await row(real)).toMatchObject({ state: "ready", version: "0.0.9" });
});
