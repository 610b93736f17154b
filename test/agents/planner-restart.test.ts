import { expect, test } from "vitest";
import type { BacklogIssue } from "@vibeserve/shared";
import { anthropic } from "../../coordinator/src/agents/anthropic.ts";
import { planWithModel, type PlannerDeps } from "../../coordinator/src/agents/planner.ts";
import type { EffectContext } from "../../coordinator/src/campaign/effect-handlers.ts";
import { agent, device, target, World } from "../campaign/world.ts";
import { MessagesServer } from "../kit/messages-server.ts";
import { implement } from "../kit/scripted-model.ts";

const PRICES = { asOf: new Date(0), models: { "model-1": { input: 4, output: 20, cacheRead: 0.4, cacheWrite: 5 } } };
const issue = (n: number): BacklogIssue => ({
  ...{ id: `judge-e0-1-${n}`, title: `idea ${n}`, mechanism: "m", skills: [], expected: 1.1, filedBy: "judge" },
});
/** As many ideas as a planner may name; the oldest is the one that it takes up. */
const issues = Array.from({ length: 40 }, (_, i) => issue(i + 1));
const idea = { title: "another", mechanism: "m", expectedRatio: 1.1 };
const edits = ["parked", "available", "parked", "available"].map((strategy) => ({ issue: "judge-e0-1-2", strategy, reason: strategy }));

/** Plans from the log, and again from the log each time that the process ends at the `killedAt`-th append. */
async function planned(server: MessagesServer, killedAt: number) {
  const world = new World([], { target: { ...target, agent: "anthropic", budget: { ...target.budget, usd: 50 } } });
  world.append({ type: "device.bound", agent, device });
  world.append({ type: "backlog.filed", issues });
  const deps: PlannerDeps = {
    ...{
      provider: anthropic({ apiKey: "k", baseUrl: server.url }),
      prices: PRICES,
      pausesMs: [1],
      over: () => null,
      model: "model-1",
      role: "r",
    },
    put: () => Promise.reject(new Error("a decision is no artifact")),
  };
  let appends = 0;
  for (;;) {
    const context: EffectContext = {
      ...{ campaign: world.state, current: () => world.state, stackDigest: "", signal: new AbortController().signal },
      ...{ requested: () => null, waits: () => undefined },
      append: async (fact) => {
        world.append(fact);
        if (++appends === killedAt) throw new Error("killed");
        return world.state;
      },
    };
    const of = { catalog: world.catalog, options: [], findings: [], lessons: [] };
    try {
      return { fact: await planWithModel(deps, "plan:1.0", context, of), backlog: world.state.backlog, appends };
    } catch (error) {
      if (!(error instanceof Error && error.message === "killed")) throw error;
    }
  }
}

test("a decision that was half carried out when the process ended is carried out to the same end, and not asked for again", async () => {
  const decided = implement({ issue: "judge-e0-1-1", ideas: [idea, idea], edits });
  await using server = await MessagesServer.start(() => decided);
  const whole = await planned(server, 0);
  expect(whole.fact).toMatchObject({ type: "experiment.proposed", issues: ["judge-e0-1-1"], experimentId: "e1" });
  expect(whole.appends).toBeLessThan(6);
  // Not at the first: an answer that was asked for and did not come is asked for again.
  for (let killedAt = 2; killedAt <= whole.appends; killedAt++) {
    const before = server.asked.length;
    const { fact, backlog } = await planned(server, killedAt);
    expect(fact).toEqual(whole.fact);
    expect(backlog).toEqual(whole.backlog);
    expect(server.asked.length - before).toBe(1);
  }
});
