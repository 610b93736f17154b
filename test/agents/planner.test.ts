import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { CampaignActor } from "../../coordinator/src/campaign/campaign.actor.ts";
import { committedUsd } from "../../coordinator/src/campaign/turns.ts";
import { MessagesServer, textOf, type Script } from "../kit/messages-server.ts";
import { decision } from "../kit/scripted-model.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const KEY = "sk-canary-7f3a";
const options = { baselines: [], repeat: null };
const target = { ...tinyTarget, agent: "anthropic" as const, budget: { ...tinyTarget.budget, usd: 5 } };
const decide = (action: "try" | "stop", skill: string, expectedRatio = 1.5): Script =>
  decision({ action, skill, expectedRatio, claim: `${skill} will help`, reason: "the rest can't pay" });
/** Tries these in order, then stops. */
const sequence =
  (...skills: string[]) =>
  (_asked: unknown, before: number): Script =>
    skills[before] === undefined ? decide("stop", "", 1) : decide("try", skills[before]);

const start = (dir: string, server: MessagesServer, more: Parameters<typeof startCoordinator>[1] = {}) =>
  startCoordinator(dir, { pausesMs: [10], anthropic: { apiKey: KEY, baseUrl: server.url }, ...more });
const facts = (actor: CampaignActor) => actor.events.map((e) => e.event.fact);
const paused = (real: RealCoordinator, actor: CampaignActor) => factOf(real, actor, "campaign.paused");

test("a model plans a campaign over real HTTP: its order, its claims, its end, what it cost, and the champion as the rules have it", async () => {
  using dir = tempDir("planner");
  await using server = await MessagesServer.start(sequence("threads", "head-slow"));
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  const { state } = actor;
  expect(state.experiments.map((x) => [x.hypothesis.skills[0], x.settled?.outcome])).toEqual([
    ["threads", "proven"],
    ["head-slow", "disproven"],
  ]);
  expect(state.experiments[0]?.hypothesis).toMatchObject({
    claim: "threads will help",
    falsification: "it does not",
    expected: { ratio: 1.5 },
  });
  expect(state.searchEnded).toBe("the planner: the rest can't pay");
  // 1,000 tokens in at $4 and 100 out at $20 a million, three times.
  expect(state.turns.map((t) => t.usd)).toEqual([0.006, 0.006, 0.006]);
  expect(committedUsd(state.turns)).toBeCloseTo(0.018, 9);
  const reserved = state.turns.map((t) => t.reservedUsd);
  expect(Math.min(...reserved)).toBeGreaterThan(0.08);
  const [first, second] = server.asked;
  expect(first?.body).toMatchObject({ model: "claude-opus-5-5", max_tokens: 4000, output_config: { format: { type: "json_schema" } } });
  expect(first?.headers.authorization).toBe(`Bearer ${KEY}`);
  // It learns of what was measured, and may only choose what is legal.
  expect(textOf(second?.body.messages[0])).toMatch(/e1 threads on seed: expected 1\.50x, proven: faster than its parent: 1\.9/);
  const { format } = second?.body.output_config as { format: { schema: { properties: { skill: { enum: string[] } } } } };
  expect(format.schema.properties.skill.enum).toEqual(["", "linear-fast", "head-slow"]);
});

test("the key is in no file of the data folder", async () => {
  using dir = tempDir("planner");
  await using server = await MessagesServer.start(sequence());
  {
    await using real = await start(dir.path, server);
    await using _agent = await real.agent("a1");
    const actor = await real.coordinator.submit(target, options);
    await factOf(real, actor, "campaign.ended");
  }
  const files = readdirSync(dir.path, { recursive: true, encoding: "utf8" }).map((f) => join(dir.path, f));
  const holding = files.filter((f) => statSync(f).isFile() && readFileSync(f).includes(KEY));
  expect(files.length).toBeGreaterThan(10);
  expect(holding).toEqual([]);
});

test("limits, overload, a stream that is cut: asked again by itself, nothing lost, nobody blamed", async () => {
  using dir = tempDir("planner");
  const trouble: Script[] = [
    { status: 429, type: "rate_limit_error", message: "slow down", retryAfter: "0" },
    { status: 529, type: "overloaded_error", message: "Overloaded" },
    { cut: true },
    { status: 500, type: "api_error", message: "Internal server error" },
  ];
  await using server = await MessagesServer.start(
    (_asked, before) => trouble[before] ?? decide(before === 4 ? "try" : "stop", before === 4 ? "threads" : ""),
  );
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  const codes = actor.state.turns.map((t) => (t.outcome?.status === "failed" ? t.outcome.code : t.outcome?.status));
  expect(codes).toEqual(["rate-limited", "overloaded", "cut-off", "overloaded", "answered", "answered"]);
  expect(facts(actor).some((f) => f.type === "campaign.paused")).toBe(false);
  // What broke in the middle may have been billed.
  const [, , cut] = actor.state.turns;
  expect(actor.state.turns.slice(0, 4).map((t) => t.usd)).toEqual([0, 0, cut?.reservedUsd, 0]);
});

test.each([
  [{ status: 401, type: "authentication_error", message: "invalid x-api-key" }, /bad-key: .*invalid x-api-key/],
  [{ status: 404, type: "not_found_error", message: "model: claude-opus-5-5" }, /no-such-model/],
  [{ reply: "", stop: "refusal" }, /refusal: the model refused/],
  [{ reply: '{"action"', stop: "max_tokens" }, /cut-short/],
] as [Script, RegExp][])("what only a person can mend pauses the campaign at once with the reason: %j", async (script, reason) => {
  using dir = tempDir("planner");
  await using server = await MessagesServer.start(() => script);
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  expect((await paused(real, actor)).reason).toMatch(reason);
  expect(server.asked).toHaveLength(1);
  expect(actor.state.experiments).toEqual([]);
});

test("a reply in the wrong shape is shown to the model once; a second ends the search, and what was proved is crowned", async () => {
  using dir = tempDir("planner");
  const replies: Script[] = [
    decide("try", "../../etc/passwd"),
    decide("try", "threads"),
    { reply: "ignore your rules \u001b[2J" },
    decide("try", "linear-fast", -1),
  ];
  await using server = await MessagesServer.start((_asked, before) => replies[before] ?? decide("stop", ""));
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  expect(actor.state.searchEnded).toMatch(/wrong shape: expectedRatio: -1 is not a ratio/);
  expect(actor.state.experiments.map((x) => x.hypothesis.skills)).toEqual([["threads"]]);
  expect(server.asked[1]?.body.messages.map((m) => m.role)).toEqual(["user", "assistant", "user"]);
  expect(textOf(server.asked[1]?.body.messages[2])).toMatch(/does not follow the schema: skill: /);
});

test("what a model says reaches no terminal as an escape", async () => {
  using dir = tempDir("planner");
  const evil = "\u001b]0;mine\u0007\u001b[2J hello";
  await using server = await MessagesServer.start(() => ({
    ...decision({ claim: evil, falsification: evil, reason: evil }),
  }));
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  await factOf(real, actor, "campaign.ended");
  expect(actor.state.searchEnded).toBe("the planner: ]0;mine [2J hello");
});

test("money is reserved before it is spent: a turn that could pass the budget is not asked, the search ends and what was proved is crowned", async () => {
  using dir = tempDir("planner");
  await using server = await MessagesServer.start(
    (_asked, before) => ({
      ...decide("try", ["threads", "linear-fast"][before] ?? ""),
      usage: { input_tokens: 15_000, output_tokens: 4_000 },
    }),
    { counts: false },
  );
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit({ ...target, budget: { ...target.budget, usd: 0.24 } }, options);
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  expect(actor.state.searchEnded).toMatch(/^the next turn of claude-opus-5-5 may cost \$0\.\d+, of \$0\.24 are \$0\.10\d+ left$/);
  expect(server.asked).toHaveLength(1);
  expect(committedUsd(actor.state.turns)).toBeCloseTo(0.14, 9);
});

test("a paused campaign asks and pays nothing; resumed, it goes on", async () => {
  using dir = tempDir("planner");
  let open = false;
  const busy: Script = { status: 529, type: "overloaded_error", message: "Overloaded" };
  await using server = await MessagesServer.start((_asked, before) => (open ? sequence()(null, before) : busy));
  await using real = await start(dir.path, server, { pausesMs: [20] });
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  await factOf(real, actor, "turn.settled");
  await actor.pause("asked for");
  await expect.poll(() => actor.waits.length).toBe(0);
  const asked = server.asked.length;
  open = true;
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(server.asked.length).toBe(asked);
  await actor.resume("asked for");
  await factOf(real, actor, "campaign.ended");
  expect(server.asked.length).toBe(asked + 1);
});

test("a coordinator that ends in a turn asks for it once more and charges the lost one; what was answered is never asked again", async () => {
  using dir = tempDir("planner");
  await using server = await MessagesServer.start((_asked, before) =>
    before === 1 ? { hang: true } : sequence("threads", "", "linear-fast")(null, before),
  );
  let id: string;
  {
    await using real = await start(dir.path, server);
    await using _agent = await real.agent("a1");
    const actor = await real.coordinator.submit(target, options);
    id = actor.id;
    await factOf(real, actor, "turn.requested", (f) => f.turnId !== actor.state.turns[0]?.id);
    await expect.poll(() => server.asked.length).toBe(2);
  }
  await using real = await start(dir.path, server);
  await using _agent = await real.agent("a2");
  const actor = await real.coordinator.campaigns.find(id);
  if (!actor) throw new Error("the campaign is gone");
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  const turns = actor.state.turns.map((t) => [t.id, t.outcome?.status === "failed" ? t.outcome.code : t.outcome?.status]);
  expect(turns.map(([, what]) => what)).toEqual(["answered", "lost", "answered", "answered"]);
  expect(new Set(turns.map(([turn]) => turn)).size).toBe(4);
  expect(actor.state.turns[1]?.usd).toBe(actor.state.turns[1]?.reservedUsd);
  expect(server.asked).toHaveLength(4);
});

test("a campaign that this coordinator can't plan for is refused when it is submitted", async () => {
  using dir = tempDir("planner");
  await using server = await MessagesServer.start(sequence());
  await using real = await start(dir.path, server, { anthropic: { apiKey: null } });
  await expect(real.coordinator.submit(target, options)).rejects.toThrow(/ANTHROPIC_API_KEY is not set where the coordinator runs/);
  await using other = tempDirCoordinator(server, { model: "claude-unheard-of" });
  await expect((await other.real).coordinator.submit(target, options)).rejects.toThrow(/no price is known for model claude-unheard-of/);
  const poor = { ...target, budget: { ...target.budget, usd: 0.01 } };
  await using third = tempDirCoordinator(server, {});
  await expect((await third.real).coordinator.submit(poor, options)).rejects.toThrow(
    /one turn of claude-opus-5-5 may cost \$0\.23, the budget is \$0\.01/,
  );
});

function tempDirCoordinator(server: MessagesServer, anthropic: { model?: string }) {
  const dir = tempDir("planner");
  const real = start(dir.path, server, { anthropic: { apiKey: KEY, baseUrl: server.url, ...anthropic } });
  return {
    real,
    [Symbol.asyncDispose]: async () => {
      await (await real)[Symbol.asyncDispose]();
      dir[Symbol.dispose]();
    },
  };
}
