import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readChampion } from "../../coordinator/src/checkpoint/champion-file.ts";
import { factOf, startCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const options = { baselines: [], repeat: null };

test("a campaign runs over the bus to a proven champion, its branch and its report", async () => {
  using dir = tempDir("campaign");
  await using real = await startCoordinator(dir.path);
  const actor = await real.coordinator.submit(tinyTarget, options);
  expect(actor.waits.join()).toMatch(/waits for a ready agent with vibeserve.dev\/device.kind=cpu; registered: none/);
  await using agent = await real.agent("a1");
  const ended = await factOf(real, actor, "campaign.ended");
  expect(ended).toMatchObject({ outcome: "proven" });
  const crowned = await factOf(real, actor, "champion.crowned");
  expect(Object.values(crowned.bindings)).toContain("bindings/linear/linear-fast.cpp");
  expect(crowned.repeat.lo).toBeGreaterThan(9);
  const repository = join(dir.path, "data/git", `${actor.id}.git`);
  expect(execFileSync("git", ["-C", repository, "rev-parse", crowned.branch], { encoding: "utf8" }).trim()).toBe(crowned.git.commit);
  const champion = readChampion(join(dir.path, "data/git"), actor.id);
  expect(champion).toMatchObject({ commit: crowned.git.commit, provenance: "shipped", sandbox: agent.info.sandbox });
  await real.reported("report.written");
  expect(JSON.parse(readFileSync(join(dir.path, "data/report.json"), "utf8"))).toMatchObject({
    campaigns: [{ target: "tiny", simulated: true }],
  });
  expect(existsSync(join(dir.path, "data/report.html"))).toBe(true);
});

test("campaigns of one target that are submitted at once get ids of their own", async () => {
  using dir = tempDir("campaign");
  await using real = await startCoordinator(dir.path);
  const actors = await Promise.all(Array.from({ length: 20 }, () => real.coordinator.submit(tinyTarget, options)));
  expect(new Set(actors.map((actor) => actor.id)).size).toBe(20);
});
