import { expect, test } from "vitest";
import type { CampaignActor } from "../../coordinator/src/campaign/campaign.actor.ts";
import { MessagesServer, textOf, type Script, type ScriptBlock } from "../kit/messages-server.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { assess, call, decision, implement, roleOf, scriptedModel, submit, verdict } from "../kit/scripted-model.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget, type TinySkill } from "../kit/tiny-stack.ts";

const options = { baselines: [], repeat: null };
const target = { ...tinyTarget, agent: "anthropic" as const, budget: { ...tinyTarget.budget, usd: 50 } };
const skills: TinySkill[] = [{ id: "head-slow", seam: "head", stated: 1.1, truth: 0.8 }];
const start = (dir: string, server: MessagesServer) =>
  startCoordinator(dir, { skills, pausesMs: [10], anthropic: { apiKey: "sk-x", baseUrl: server.url } });
const faster = (speed: number, more = "") =>
  call("write", { path: "seed/linear.cpp", content: `// linear, new\n// speed: ${speed}\n${more}` });
const of = (server: MessagesServer, role: string) => server.asked.filter((a) => roleOf(a) === role);
const settled = (actor: CampaignActor) => actor.state.experiments.map((x) => [x.settled?.outcome, x.settled?.strategy]);

/** The campaign's end, or whatever stopped it before. */
async function over(real: RealCoordinator, actor: CampaignActor): Promise<string> {
  const ended = factOf(real, actor, "campaign.ended").then((f) => f.outcome);
  const paused = factOf(real, actor, "campaign.paused").then((f) => `paused: ${f.reason}`);
  const failed = real.reported("campaign.failed").then((f) => `failed: ${String(f["why"])}`);
  return Promise.race([ended, paused, failed]);
}

/** A campaign whose implementer says this, and then gives up. */
async function implementing(...turns: (Script | ScriptBlock[])[]) {
  using dir = tempDir("hostile");
  await using server = await MessagesServer.start(
    scriptedModel({
      planner: [implement(), decision({})],
      implementer: [...turns, [submit({ declared: "needs-debugging" })]],
      judge: [verdict("pass")],
      evaluator: [assess()],
    }),
  );
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  const outcome = await over(real, actor);
  return {
    outcome,
    answers: of(server, "implementer")
      .slice(1)
      .map((a) => textOf(a.body.messages.at(-1))),
    actor,
    server,
  };
}

test.each(["constructor", "toString", "__proto__", "hasOwnProperty"])("a tool called %s is no tool", async (tool) => {
  const { outcome, answers } = await implementing([call(tool, {})]);
  expect(outcome).toBe("not-proven");
  expect(answers[0]).toMatch(/there is no tool/);
});

test("a tree without files can't be built or handed in: the model is told so", async () => {
  const { outcome, answers } = await implementing([call("list", { folder: "" })]);
  expect(outcome).toBe("not-proven");
  const all = (answers[0] ?? "").split("\n").map((l) => l.split(" ")[0] ?? "");
  expect(all).toContain("stack.json");
  const empty = await implementing([...all.map((path) => call("remove", { path })), call("build", {})], [submit()]);
  expect(empty.outcome).toBe("not-proven");
  expect(empty.answers[0]).toMatch(/a candidate without files/);
  expect(empty.answers[1]).toMatch(/a candidate without files/);
});

test("a command that is larger than a message may be is refused in words", async () => {
  const { outcome, answers } = await implementing([call("run", { argv: Array.from({ length: 64 }, () => "€".repeat(4_000)) })]);
  expect(outcome).toBe("not-proven");
  expect(answers[0]).toMatch(/the arguments do not fit: argv/);
});

test("arguments nested without end are no arguments", async () => {
  const json = `{"path":${"[".repeat(9_000)}${"]".repeat(9_000)}}`;
  const { outcome, answers } = await implementing([
    { tool: "read", json },
    { tool: "build", json: "null" },
    { tool: "list", json: "[1]" },
  ]);
  expect(outcome).toBe("not-proven");
  expect(answers[0]).toMatch(/the arguments do not fit/);
});

test("text that is cut never ends in half a character: providers refuse such a request for good", async () => {
  const smileys = "😀".repeat(30_000);
  const { outcome, server } = await implementing(
    [call("write", { path: "seed/a.h", content: `x${smileys}\n` }), call("read", { path: "seed/a.h" }), call("search", { text: "x" })],
    [call("write", { path: "seed/b.h", content: smileys }), call("diff", {}), call("read", { path: "seed/b.h" })],
    { blocks: [faster(3, `// ${smileys}`), submit({ summary: "😀".repeat(1_000) })] },
  );
  expect(outcome).toBe("proven");
  for (const { body } of server.asked) for (const m of body.messages) expect(textOf(m).isWellFormed()).toBe(true);
});

test.each([-5, 1.5, null, "many"])(
  "a provider that bills %s tokens: the campaign goes on, and as much as was reserved counts",
  async (tokens) => {
    const usage = { input_tokens: tokens as number, output_tokens: 10 };
    const { outcome, actor } = await implementing({ blocks: [call("list", { folder: "" })], usage });
    expect(outcome).toBe("not-proven");
    const [turn] = actor.state.turns.filter((t) => t.role === "implementer");
    expect(turn?.usd).toBeGreaterThan(0.5 * (turn?.reservedUsd ?? 0));
  },
);

test("a planner whose words are blanks or control characters files an idea all the same", async () => {
  using dir = tempDir("hostile");
  await using server = await MessagesServer.start(
    scriptedModel({
      planner: [
        implement({
          claim: " ",
          mechanism: "\u0007",
          activation: "\u001b",
          ideas: [{ title: "\u0000", mechanism: "\u0001", expectedRatio: 2 }],
        }),
        decision({}),
      ],
      implementer: [[submit({ declared: "needs-debugging" })]],
    }),
  );
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  expect(await over(real, actor)).toBe("not-proven");
  expect(settled(actor)).toEqual([["implementation_failed", "parked"]]);
});

test("what a judge refused can't be handed in again as it is: its veto is not outvoted by another judge", async () => {
  using dir = tempDir("hostile");
  await using server = await MessagesServer.start(
    scriptedModel({
      planner: [implement(), decision({})],
      implementer: [[faster(3), submit()], [submit()], [submit({ declared: "needs-debugging" })]],
      judge: [verdict("veto"), verdict("pass")],
      evaluator: [assess()],
    }),
  );
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  expect(await over(real, actor)).toBe("not-proven");
  expect(of(server, "judge")).toHaveLength(1);
  expect(textOf(of(server, "implementer")[2]?.body.messages.at(-1))).toMatch(/came back already/);
});
