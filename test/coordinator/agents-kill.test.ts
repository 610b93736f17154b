import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { parse, stringify } from "yaml";
import { CampaignEvent } from "@vibeserve/shared";
import { MessagesServer, type Asked } from "../kit/messages-server.ts";
import { assess, call, decision, implement, roleOf, scriptedModel, submit, verdict } from "../kit/scripted-model.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";

vi.setConfig({ testTimeout: 120_000 });

const CANARY = "sk-canary-kill-9a";
const turnOf = ({ headers }: Asked): string => String(headers["x-vibeserve-turn"]).replace(/\.\d+$/, "");

test.each(["planner", "implementer", "judge", "evaluator"] as const)(
  "kill -9 of the coordinator in a turn of the %s: it goes on in that turn, and no answer is paid for twice or lost",
  async (victim) => {
    using dir = tempDir("agents-kill");
    const model = scriptedModel({
      planner: [implement(), decision({ reason: "enough" })],
      implementer: [
        [call("write", { path: "seed/linear.cpp", content: "// new\n// speed: 3\n" }), call("build")],
        [call("check")],
        [submit()],
      ],
      judge: [verdict("pass")],
      evaluator: [assess()],
    });
    const [answered, hung] = [[] as string[], [] as string[]];
    await using server = await MessagesServer.start((asked) => {
      // Each role's last turn hangs the first time; the planner's is its first.
      const last =
        roleOf(asked) === victim && (victim !== "implementer" || answered.filter((t) => t.startsWith("implementer")).length === 2);
      if (last && hung.length === 0) {
        hung.push(turnOf(asked));
        return { hang: true };
      }
      answered.push(turnOf(asked));
      return model(asked);
    });
    const site = new Site(join(dir.path, "site"), { ANTHROPIC_API_KEY: CANARY, ANTHROPIC_BASE_URL: server.url });
    const target = { ...(parse(readFileSync(site.target, "utf8")) as object), agent: "anthropic", bindings: "none" };
    writeFileSync(site.target, stringify(target));
    try {
      const up = site.run("up");
      await up.printed(/coordinator ready/);
      site.run("agent", "--no-setup");
      expect(await site.run("submit", site.target, "--usd", "20", "--baseline", "none").ended).toBe(0);
      await server.stalled;
      up.child.kill("SIGKILL");
      await up.ended;
      const again = site.run("up");
      await again.printed(/coordinator ready/);
      expect(await site.run("watch").ended).toBe(0);

      // What hung was asked again under the same turn; nothing that had been answered was.
      expect(hung).toHaveLength(1);
      expect(answered).toContain(hung[0]);
      expect(new Set(answered).size).toBe(answered.length);
      const out = join(dir.path, "export");
      expect(await site.run("export", "--out", out).ended).toBe(0);
      const lines = readFileSync(join(out, "events.jsonl"), "utf8").trim().split("\n");
      const facts = lines.map((line) => CampaignEvent.parse(JSON.parse(line)).fact);
      const settled = facts.flatMap((f) =>
        f.type === "turn.settled" && f.outcome.status !== "failed" ? [f.turnId.replace(/\.\d+$/, "")] : [],
      );
      expect(settled).toEqual(answered);
      expect(facts.filter((f) => f.type === "turn.settled" && f.outcome.status === "failed")).toMatchObject([
        { outcome: { code: "lost" } },
      ]);
      expect(facts.filter((f) => f.type === "champion.crowned")).toHaveLength(1);
      expect(lines.some((line) => line.includes(CANARY))).toBe(false);
    } finally {
      site.cleanUp();
    }
  },
);
