import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { MessagesServer, type Script } from "../kit/messages-server.ts";
import { factOf, startCoordinator } from "../kit/real-coordinator.ts";
import { scriptedModel } from "../kit/scripted-model.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget, type TinySkill } from "../kit/tiny-stack.ts";
import { ROOT, SANDBOX } from "./command-kit.ts";

const options = { baselines: [], repeat: null };
const target = { ...tinyTarget, agent: "command" as const, budget: { ...tinyTarget.budget, usd: 50 } };
const skills: TinySkill[] = [{ id: "head-slow", seam: "head", stated: 1.1, truth: 0.8 }];
const KEY = "sk-canary-cli-31";

/** What the CLI's model has it do: steps of the fake CLI, the last of which are calls of our tools. */
const steps = (...list: Record<string, unknown>[]): Script => ({ reply: JSON.stringify(list) });
const decide = (d: Record<string, unknown>): Script =>
  steps({
    mcp: [
      [
        "decide",
        {
          ...{ action: "stop", skill: "", expectedRatio: 1, claim: "c", falsification: "f", reason: "done", issue: "", parent: "" },
          ...{ mechanism: "", activation: "", invariants: [], passCriteria: [], skills: [], edits: [], ideas: [] },
          ...d,
        },
      ],
    ],
  });
const implement = decide({ action: "implement", expectedRatio: 2, mechanism: "fewer bytes", activation: "a profile" });
const submit = (declared: string) => ["submit", { declared, summary: "s", evidence: [], mechanism: "", nextStep: "" }];
const pass = steps({
  mcp: [
    ["diff", { path: null }],
    ["verdict", { verdict: "pass", reason: "fine", findings: [], bugs: [] }],
  ],
});
const assess = steps({ mcp: [["assess", { bottleneck: "b", mechanism: "ran", evidence: "e", ideas: [] }]] });

/** An installation whose CLI is the fake one, run by Claude Code's recipe. */
async function start(dir: string, server: MessagesServer) {
  const agents = join(dir, "root/prompts/agents");
  mkdirSync(agents, { recursive: true });
  const recipe = parse(readFileSync(join(ROOT, "prompts/agents/claude-code.yaml"), "utf8")) as { api: object };
  const api = { ...recipe.api, credential: "FAKE_CLI_KEY" };
  writeFileSync(join(agents, "fake.yaml"), stringify({ ...recipe, program: "fake-cli.mjs", install: "it lies in test/kit", api }));
  const bin = join(dir, "bin");
  mkdirSync(bin);
  copyFileSync(join(ROOT, "test/kit/fake-cli.mjs"), join(bin, "fake-cli.mjs"));
  process.env["FAKE_CLI_KEY"] = KEY;
  return startCoordinator(dir, {
    skills,
    pausesMs: [10],
    cli: "fake",
    path: `${bin}:${process.env["PATH"] ?? ""}`,
    anthropic: { apiKey: null, baseUrl: server.url },
  });
}

test.skipIf("refused" in SANDBOX)(
  "a coding CLI in its sandbox plans, writes, judges and evaluates over MCP, and its code is crowned",
  async () => {
    using dir = tempDir("command");
    await using server = await MessagesServer.start(
      scriptedModel({
        planner: [implement, decide({ reason: "enough" })],
        implementer: [
          steps(
            { write: ["/worktree/seed/linear.cpp", "// new\n// speed: 3\n"] },
            { write: ["/worktree/seed/extra.h", "// more\n"] },
            {
              mcp: [
                ["build", {}],
                ["skill", { id: "head-slow" }],
                ["bench_quick", {}],
              ],
            },
            { write: ["/worktree/seed/extra.h", "// less\n"] },
            { mcp: [submit("ready")] },
          ),
        ],
        judge: [pass],
        evaluator: [assess],
      }),
    );
    await using real = await start(dir.path, server);
    await using _agent = await real.agent("a1");
    const actor = await real.coordinator.submit(target, options);
    expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
    expect(actor.state.experiments[0]).toMatchObject({
      provenance: "model",
      settled: { outcome: "proven", ratio: { point: expect.closeTo(3, 1) as number } },
    });
    // Each call of a tool of ours is a turn, with what the CLI wrote before it.
    const said = actor.state.turns.map((t) => [
      t.role,
      t.outcome?.status === "said" ? t.outcome.calls.map((c) => c.tool).join(" ") : t.outcome?.status,
    ]);
    expect(said).toEqual([
      ["planner", "answered"],
      ["implementer", "sync build"],
      ["implementer", "skill"],
      ["implementer", "bench_quick"],
      ["implementer", "sync submit"],
      ["judge", "diff"],
      ["judge", "verdict"],
      ["evaluator", "assess"],
      ["planner", "answered"],
    ]);
    // The provider was asked through the proxy, with the key that the CLI never had; what it cost is what the proxy metered.
    expect(new Set(server.asked.map((a) => a.headers["x-api-key"]))).toEqual(new Set([KEY]));
    expect(actor.state.turns.reduce((sum, t) => sum + t.usd, 0)).toBeCloseTo(5 * 0.006, 9);
  },
);

test.skipIf("refused" in SANDBOX)(
  "a CLI that ends without handing in parks the idea; what is no tree is refused to it in words",
  async () => {
    using dir = tempDir("command");
    await using server = await MessagesServer.start(
      scriptedModel({
        planner: [implement, implement, decide({})],
        implementer: [
          steps({ write: ["/worktree/seed/linear.cpp", "// half\n"] }),
          // The first call is refused until the file is gone.
          steps(
            { write: ["/worktree/a:b.cpp", "x"] },
            { mcp: [["build", {}]] },
            { remove: "/worktree/a:b.cpp" },
            { mcp: [submit("needs-debugging")] },
          ),
        ],
      }),
    );
    await using real = await start(dir.path, server);
    await using _agent = await real.agent("a1");
    const actor = await real.coordinator.submit(target, options);
    expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "not-proven" });
    expect(actor.state.experiments.map((x) => [x.settled?.outcome, x.settled?.strategy])).toEqual([
      ["implementation_failed", "parked"],
      ["implementation_failed", "parked"],
    ]);
    expect(actor.state.experiments[0]?.settled?.reason).toMatch(/the CLI ended without handing in/);
    expect(actor.state.experiments[1]?.settled?.reason).toMatch(/^needs debugging: s/);
    const second = actor.state.turns.filter((t) => t.role === "implementer" && t.of?.experimentId === "e2");
    expect(second.map((t) => (t.outcome?.status === "said" ? t.outcome.calls.map((c) => c.tool) : []))).toEqual([["submit"]]);
  },
);

test.skipIf("refused" in SANDBOX)(
  "a CLI that is not installed pauses the campaign with what to do; without its key it is refused at once",
  async () => {
    using dir = tempDir("command");
    await using server = await MessagesServer.start(scriptedModel({}));
    await using real = await start(dir.path, server);
    await using _agent = await real.agent("a1");
    rmSync(join(dir.path, "bin/fake-cli.mjs"));
    const actor = await real.coordinator.submit(target, options);
    expect((await factOf(real, actor, "campaign.paused")).reason).toMatch(/fake-cli\.mjs is not installed .*it lies in test\/kit/);
    delete process.env["FAKE_CLI_KEY"];
    await expect(real.coordinator.submit(target, options)).rejects.toThrow(
      /agent command: FAKE_CLI_KEY is not set where the coordinator runs/,
    );
  },
);
