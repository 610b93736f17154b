import { expect, test } from "vitest";
import { MessagesServer, type Asked, type Script } from "../kit/messages-server.ts";
import { factOf, startCoordinator } from "../kit/real-coordinator.ts";
import { call, decision, implement, scriptedModel } from "../kit/scripted-model.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const options = { baselines: [], repeat: null };
const target = { ...tinyTarget, agent: "anthropic" as const, bindings: "none" as const, budget: { ...tinyTarget.budget, usd: 5 } };

test("where a model is gone the next of the list is asked; the last one's absence pauses with the provider's words", async () => {
  using dir = tempDir("turns");
  const gone = (asked: Asked): Script | null =>
    asked.body.model === "claude-opus-5-5" ? null : { status: 404, type: "not_found_error", message: `model: ${asked.body.model}` };
  await using server = await MessagesServer.start((asked) => gone(asked) ?? decision({ reason: "enough" }));
  const models = { apiKey: "k", baseUrl: server.url };
  await using real = await startCoordinator(dir.path, {
    pausesMs: [10],
    anthropic: { ...models, model: "claude-opus-4-8,claude-opus-5-5", models: { judge: "claude-opus-4-8" } },
  });
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(target, options);
  await factOf(real, actor, "campaign.ended");
  expect(actor.state.turns.map((t) => [t.model, t.outcome?.status === "failed" ? t.outcome.code : t.outcome?.status])).toEqual([
    ["claude-opus-4-8", "no-such-model"],
    ["claude-opus-5-5", "answered"],
  ]);
});

test("a prompt whose bytes might not fit what is left is counted by the provider before it is given up", async () => {
  using dir = tempDir("turns");
  for (const counts of [true, false]) {
    const scripted = scriptedModel({
      planner: [{ ...implement(), usage: { input_tokens: 12_000, output_tokens: 100 } }],
      implementer: [[call("list", { folder: "" })]],
    });
    await using server = await MessagesServer.start(scripted, { counts });
    await using real = await startCoordinator(`${dir.path}/${String(counts)}`, {
      pausesMs: [10],
      anthropic: { apiKey: "k", baseUrl: server.url },
    });
    await using _agent = await real.agent("a1");
    const capped = { ...target, budget: { ...target.budget, tokens: 34_500 } };
    const actor = await real.coordinator.submit(capped, options);
    await factOf(real, actor, "search.ended");
    const asked = actor.state.turns.filter((t) => t.role === "implementer");
    expect([asked.length > 0, server.counted.length > 0]).toEqual([counts, true]);
  }
});

test("a budget that may not carry one experiment is said before anything is paid, with the estimate", async () => {
  using dir = tempDir("turns");
  await using server = await MessagesServer.start(() => decision({ reason: "enough" }));
  await using real = await startCoordinator(dir.path, { anthropic: { apiKey: "k", baseUrl: server.url } });
  const poor = await real.coordinator.submit({ ...target, budget: { ...target.budget, usd: 0.3 } }, options);
  expect((await factOf(real, poor, "note.recorded")).text).toMatch(
    /^\$0\.3 may not carry one experiment that a model writes: about \$0\.\d+ at the prices of claude-opus-5-5$/,
  );
  const rich = await real.coordinator.submit(target, options);
  expect(rich.events.map((e) => e.event.fact.type)).not.toContain("note.recorded");
  expect(server.asked).toHaveLength(0);
});
