import { expect, test } from "vitest";
import { MessagesServer } from "../kit/messages-server.ts";
import { factOf, startCoordinator } from "../kit/real-coordinator.ts";
import { decision } from "../kit/scripted-model.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const options = { baselines: [], repeat: null };
const capped = (budget: Partial<typeof tinyTarget.budget>) => ({
  ...tinyTarget,
  agent: "anthropic" as const,
  budget: { ...tinyTarget.budget, usd: 5, ...budget },
});
const trying = decision({ action: "try", skill: "threads", expectedRatio: 2 });

test.each([
  [{ turns: 1 }, /^the next turn of claude-opus-5-5 would be number 2, the budget has 1 turn$/],
  [{ tokens: 34_000 }, /^the next turn of claude-opus-5-5 may take \d+ tokens, of 34000 are 1000 left$/],
])("a cap that is reached ends the search with what a turn would take, and what was proved is crowned: %j", async (budget, reason) => {
  using dir = tempDir("caps");
  await using server = await MessagesServer.start(() => ({ ...trying, usage: { input_tokens: 32_900, output_tokens: 100 } }));
  await using real = await startCoordinator(dir.path, { anthropic: { apiKey: "k", baseUrl: server.url } });
  await using _agent = await real.agent("a1");
  const actor = await real.coordinator.submit(capped(budget), options);
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  expect(actor.state.searchEnded).toMatch(reason);
  expect(server.asked).toHaveLength(1);
});

test("a cap on tokens that not even one turn fits is refused when the campaign is submitted", async () => {
  using dir = tempDir("caps");
  await using real = await startCoordinator(dir.path, { anthropic: { apiKey: "k" } });
  await expect(real.coordinator.submit(capped({ tokens: 1_000 }), options)).rejects.toThrow(
    /one turn of claude-opus-5-5 may take 34000 tokens, budget.tokens is 1000/,
  );
});

test("what all campaigns together may spend caps each, promises included", async () => {
  using dir = tempDir("caps");
  await using server = await MessagesServer.start(() => ({ ...trying, usage: { input_tokens: 10_000, output_tokens: 1_000 } }), {
    counts: false,
  });
  // A turn is promised some 12 cents and costs 6.
  await using real = await startCoordinator(dir.path, { usd: 0.2, anthropic: { apiKey: "k", baseUrl: server.url } });
  await using _agent = await real.agent("a1");
  const run = async (budget: Parameters<typeof capped>[0]) => {
    const actor = await real.coordinator.submit(capped(budget), options);
    await factOf(real, actor, "campaign.ended");
    return actor.state.searchEnded;
  };
  for (const _ of [1, 2]) expect(await run({ turns: 1 })).toMatch(/would be number 2/);
  expect(await run({})).toMatch(/may cost \$0\.1\d+, of \$0\.2 for all campaigns are \$0\.08\d+ left$/);
  expect(server.asked).toHaveLength(2);
});
