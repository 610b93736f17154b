import { expect, test } from "vitest";
import { sha256 } from "@vibeserve/shared";
import { anthropic } from "../../coordinator/src/agents/anthropic.ts";
import { user } from "../../coordinator/src/agents/conversation.ts";
import { takeTurn, type TurnDeps } from "../../coordinator/src/agents/turns.ts";
import type { EffectContext } from "../../coordinator/src/campaign/effect-handlers.ts";
import { target, World } from "../campaign/world.ts";
import { MessagesServer } from "../kit/messages-server.ts";

const PRICES = { asOf: new Date(0), models: { "model-1": { input: 4, output: 20, cacheRead: 0.4, cacheWrite: 5 } } };
const request = {
  model: "model-1",
  maxTokens: 1_000,
  system: "s",
  messages: [user("go on")],
  reply: { kind: "tools" as const, tools: [] },
};
const of = { experimentId: "e1", draft: 0, n: 1 };

/** A turn against this server, in a campaign that is only its log. */
function taking(server: MessagesServer, put: TurnDeps["put"]) {
  const world = new World([], { target: { ...target, agent: "anthropic", budget: { ...target.budget, usd: 50 } } });
  const waits: (string | null)[] = [];
  const context: EffectContext = {
    campaign: world.state,
    current: () => world.state,
    stackDigest: "",
    signal: new AbortController().signal,
    requested: () => null,
    append: async (fact) => {
      world.append(fact);
      return world.state;
    },
    waits: (reason) => waits.push(reason),
  };
  const deps = { provider: anthropic({ apiKey: "k", baseUrl: server.url }), prices: PRICES, pausesMs: [1], over: () => null, put };
  return { world, waits, take: () => takeTurn(deps, context, "implementer:e1.0.1", "implementer", request, of) };
}

test("an answer that can't be stored is kept until it can: it is not asked, nor paid, again", async () => {
  await using server = await MessagesServer.start(() => ({ blocks: [{ tool: "list", input: {} }] }));
  let tries = 0;
  const { world, waits, take } = taking(server, async (bytes) => {
    if (++tries < 3) throw new Error("no room");
    return { digest: sha256(bytes), bytes: bytes.length };
  });
  expect(await take()).toEqual({ kind: "answered", reply: "" });
  expect(server.asked).toHaveLength(1);
  expect(world.state.turns.map((t) => t.outcome?.status)).toEqual(["said"]);
  expect(waits).toEqual(["an answer can't be stored: no room; tried again", "an answer can't be stored: no room; tried again", null]);
});

test("an answer in a form that the log can't hold is a failure that a person sees, charged as reserved", async () => {
  await using server = await MessagesServer.start(() => ({ blocks: [{ tool: "", input: {} }] }));
  const { world, take } = taking(server, async (bytes) => ({ digest: sha256(bytes), bytes: bytes.length }));
  await expect(take()).rejects.toThrow(/model-1.*refused-request: the answer has a form that is not known: calls\.0\.tool/);
  expect(world.state.turns).toMatchObject([{ outcome: { status: "failed", code: "refused-request" } }]);
  expect(world.state.turns[0]?.usd).toBe(world.state.turns[0]?.reservedUsd);
});
