import { join } from "node:path";
import { expect, test, vi } from "vitest";
import type { CostReport } from "../../coordinator/src/campaign/cost.ts";
import { MessagesServer, type Script } from "../kit/messages-server.ts";
import { decision } from "../kit/scripted-model.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";

vi.setConfig({ testTimeout: 120_000 });

const usage = { input_tokens: 1_000, output_tokens: 100, cache_read_input_tokens: 3_000, cache_creation_input_tokens: 0 };

const decide = (action: "try" | "stop", skill: string): Script => ({ ...decision({ action, skill, expectedRatio: 2 }), usage });

test("what a campaign with a model cost is told by another process while it runs, and after it has ended", async () => {
  using dir = tempDir("cost");
  await using server = await MessagesServer.start((_asked, before) =>
    before === 0 ? { cut: true } : before === 1 ? decide("try", "threads") : decide("stop", ""),
  );
  const site = new Site(join(dir.path, "site"), {
    ANTHROPIC_API_KEY: "sk-canary",
    ANTHROPIC_BASE_URL: server.url,
    FAKE_AGENT_WORK_MS: "30",
  });
  const verb = async (...args: string[]) => {
    const command = site.run(...args);
    return { code: await command.ended, out: command.out(), err: command.err() };
  };
  try {
    const up = site.run("up");
    await up.printed(/coordinator ready/);
    expect(await verb("cost")).toMatchObject({ code: 2, err: "vibeserve: there is no campaign yet\n" });
    expect((await verb("submit", site.target, "--agent", "anthropic", "--usd", "5", "--baseline", "none")).code).toBe(0);
    const early = JSON.parse((await verb("cost", "--json")).out) as unknown;
    expect(early).toMatchObject({ v: 1, kind: "cost", target: "tiny", outcome: null, device: { totalS: 0 }, accepted: { percent: null } });
    const agent = site.run("agent", "--no-setup");
    expect((await verb("watch")).code).toBe(0);
    const ended = JSON.parse((await verb("cost", "--json")).out) as CostReport;
    // 1,000 tokens in at $4, 3,000 from the cache at $0.20 and 100 out at $20 a million, twice; the stream that broke is charged as reserved.
    expect(ended).toMatchObject({
      outcome: "proven",
      total: { turns: 3, input: 2_000, output: 200, cacheRead: 6_000, cachedShare: 0.75 },
      byExperiment: [
        { name: "e1", turns: 2 },
        { name: "(end of search)", turns: 1, settledUsd: 0.0066 },
      ],
      cutOff: { turns: 1 },
      accepted: { leaders: ["e1"] },
    });
    expect(ended.device.jobs.map((j) => `${j.experiment} ${j.job}`)).toEqual([
      "seed build",
      "seed check",
      "e1 build",
      "e1 check",
      "e1 bench",
    ]);
    // An agent took at least what its work takes, less a timer's rounding.
    expect(Math.min(...ended.device.jobs.map((j) => j.seconds / j.results))).toBeGreaterThan(0);
    const text = (await verb("cost")).out;
    // For docs/cost.md, whose table comes from here.
    if (process.env["SHOW_COST"] !== undefined) process.stdout.write(text);
    expect(text).toMatch(/lost turns {2}0 lost: \$0\.0000, 1 cut off: \$0\.\d+; both charged as reserved/);
    expect(text).toMatch(/per gain {4}\$0\.\d+ per accepted %: 1\.9\d× over the seed \(e1\), by direct pairs/);
    agent.child.kill("SIGTERM");
    up.child.kill("SIGTERM");
    await Promise.all([agent.ended, up.ended]);
  } finally {
    site.cleanUp();
  }
});
