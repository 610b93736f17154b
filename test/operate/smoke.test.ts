import { readdirSync } from "node:fs";
import { join } from "node:path";
import { CampaignList } from "@vibeserve/shared";
import { expect, test, vi } from "vitest";
import { smoke } from "../../coordinator/src/operate/smoke.ts";
import { smokeTarget } from "../../coordinator/src/operate/smoke-agent.ts";
import { readChampion } from "../../coordinator/src/checkpoint/champion-file.ts";
import { startCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";
import { Site } from "../kit/vibeserve-process.ts";

vi.setConfig({ testTimeout: 120_000 });

test("a smoke test against a running coordinator passes, leaves nobody in, and nothing that a verb takes for a real champion", async () => {
  using dir = tempDir("smoke");
  const site = new Site(dir.path);
  const up = site.run("up");
  try {
    await up.printed(/coordinator ready/);
    const answer = await site.answer<{ steps: { name: string; ok: boolean; saw: string }[]; agent: string }>(
      "smoke",
      "--seed",
      "stacks/tiny",
    );
    expect(answer).toMatchObject({ v: 1, kind: "smoke", simulated: true, ok: true });
    expect(answer.steps.map((s) => s.name)).toEqual([
      "enrol",
      "connect",
      "register",
      "submit",
      "campaign",
      "results",
      "report",
      "clean up",
    ]);
    expect(answer.steps.find((s) => s.name === "report")?.saw).toMatch(/^SIMULATED: \d/);
    expect(await site.answer("agents")).toMatchObject({ agents: [{ agentId: answer.agent, state: "revoked" }] });
    const { campaigns } = CampaignList.parse(await site.answer("campaigns"));
    expect(campaigns).toMatchObject([{ target: "smoke-simulated", outcome: "proven" }]);
    expect(readChampion(join(site.data, "git"), campaigns[0]?.campaign ?? "")).toMatchObject({ target: "smoke-simulated" });
    expect(readChampion(join(site.data, "git"), null)).toBeNull();
  } finally {
    await site.stop();
    site.cleanUp();
  }
});

test("it starts a coordinator of its own where it is told to, and leaves nothing of it", async () => {
  using dir = tempDir("smoke");
  const site = new Site(dir.path, { TMPDIR: dir.path });
  const command = site.run("smoke", "--own", "--seed", "stacks/tiny");
  expect(await command.ended, command.err()).toBe(0);
  expect(command.out()).toMatch(/smoke: ok/);
  const there = readdirSync(dir.path).filter((name) => name.startsWith("vibeserve-smoke-"));
  expect(there).toEqual([]);
});

test("it says which step failed, and puts its agent out all the same; a real campaign that waits never gets its device", async () => {
  using dir = tempDir("smoke");
  await using real = await startCoordinator(dir.path);
  await using client = await real.client();
  const waiting = await real.coordinator.submit({ ...tinyTarget, device: {} }, { baselines: [], repeat: null });
  const failed = await smoke(client, "stacks/none", AbortSignal.timeout(30_000), () => undefined);
  expect(failed).toMatchObject({ ok: false, campaign: null });
  expect(failed.steps.find((s) => !s.ok)).toMatchObject({ name: "submit", saw: expect.stringMatching(/seed/) as string });
  expect(failed.steps.at(-1)).toMatchObject({ name: "clean up", ok: true });
  const late = await smoke(client, "stacks/tiny", AbortSignal.abort(), () => undefined);
  expect(late.steps.filter((s) => !s.ok).map((s) => s.name)).toHaveLength(1);
  const passed = await smoke(client, "stacks/tiny", AbortSignal.timeout(30_000), () => undefined);
  expect(passed.ok, JSON.stringify(passed.steps)).toBe(true);
  expect(waiting.state.device).toBeNull();
  expect(real.coordinator.broker.agents).toEqual([]);
  const { campaigns } = await client.campaigns();
  expect(campaigns.filter((c) => c.target === smokeTarget("x", "y").name && c.state !== "ended")).toEqual([]);
});
