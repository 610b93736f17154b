import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { parse, stringify } from "yaml";
import type { Report } from "../../coordinator/src/report/report-model.ts";
import { MessagesServer } from "../kit/messages-server.ts";
import { assess, call, decision, implement, scriptedModel, submit, verdict } from "../kit/scripted-model.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";

vi.setConfig({ testTimeout: 120_000 });

const CANARY = "sk-canary-start-77";

test("a key and --agent anthropic are the whole difference: one command ends with a champion that a model wrote, and --record keeps what was said", async () => {
  using dir = tempDir("agents-start");
  await using server = await MessagesServer.start(
    scriptedModel({
      planner: [implement({ claim: "linear reads less" }), decision({ reason: "enough" })],
      implementer: [[call("write", { path: "seed/linear.cpp", content: "// new\n// speed: 3\n" }), call("check"), submit()]],
      judge: [verdict("pass")],
      evaluator: [assess()],
    }),
  );
  const site = new Site(join(dir.path, "site"), { ANTHROPIC_API_KEY: CANARY, ANTHROPIC_BASE_URL: server.url });
  writeFileSync(site.target, stringify({ ...(parse(readFileSync(site.target, "utf8")) as object), bindings: "none" }));
  try {
    const command = site.start(site.target, "--agent", "anthropic", "--record", "--baseline", "none");
    expect(await command.ended, command.err()).toBe(0);
    expect(command.out()).toMatch(/e1 proposed: linear reads less[\s\S]*e1 review of the candidate: pass[\s\S]*champion e1 crowned/);
    const report = JSON.parse(readFileSync(join(site.data, "report.json"), "utf8")) as Report;
    expect(report.campaigns[0]).toMatchObject({ outcome: "proven", experiments: [{ id: "e1", outcome: "proven" }] });
    const [campaign = ""] = readdirSync(join(site.data, "transcripts"));
    expect(readdirSync(join(site.data, "transcripts", campaign)).sort()).toEqual([
      "evaluator-e1.1.1.1.json",
      "implementer-e1.0.1.1.json",
      "judge-e1.1.1.1.json",
      "plan-0.0.1.1.json",
      "plan-0.1.1.1.json",
    ]);
    // The key is in no file that the run left.
    const files = readdirSync(site.dir, { recursive: true, encoding: "utf8" }).map((f) => join(site.dir, f));
    const holding = files.filter((f) => existsSync(f) && statSync(f).isFile() && readFileSync(f).includes(CANARY));
    expect(holding).toEqual([]);
  } finally {
    site.cleanUp();
  }
});

test.each([
  [{ ANTHROPIC_API_KEY: "" }, ["--agent", "anthropic"], /ANTHROPIC_API_KEY is not set where the coordinator runs/],
  [{ VIBESERVE_MODEL: "claude-nobody" }, ["--agent", "anthropic"], /no price is known for model claude-nobody/],
  [{}, ["--agent", "anthropic", "--usd", "0.01"], /one turn of claude-opus-5-5 may cost \$0\.\d+, the budget is \$0\.01/],
  [{ VIBESERVE_CLI: "nobody" }, ["--agent", "command"], /there is no recipe "nobody"; there are: .*claude-code/],
  [{}, ["--agent", "openai-compatible"], /neither OPENAI_BASE_URL .* nor OPENAI_API_KEY is set/],
  [{}, ["--agent", "nobody"], /there is no such agent; allowed: playbook, anthropic/],
] as [Record<string, string>, string[], RegExp][])(
  "what can't be asked is refused by name, with exit 2 and nothing left: %j %j",
  async (env, args, message) => {
    using dir = tempDir("agents-start");
    const none = { OPENAI_API_KEY: "", OPENAI_BASE_URL: "", ANTHROPIC_BASE_URL: "http://127.0.0.1:9" };
    const site = new Site(join(dir.path, "site"), { ANTHROPIC_API_KEY: CANARY, ...none, ...env });
    try {
      const command = site.start(site.target, ...args);
      expect(await command.ended).toBe(2);
      expect(command.err()).toMatch(message);
      expect(command.err().trim().split("\n")).toHaveLength(1);
    } finally {
      site.cleanUp();
    }
  },
);
