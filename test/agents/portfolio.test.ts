import { expect, test } from "vitest";
import { costOf } from "../../coordinator/src/campaign/cost.ts";
import { members, nextMember } from "../../coordinator/src/campaign/portfolio.ts";
import type { Experiment } from "../../coordinator/src/campaign/experiment.machine.ts";
import type { Turn } from "../../coordinator/src/campaign/turns.ts";
import { World, target as simulated } from "../campaign/world.ts";
import { ChatServer } from "../kit/chat-server.ts";
import { MessagesServer } from "../kit/messages-server.ts";
import { factOf, startCoordinator } from "../kit/real-coordinator.ts";
import { assess, call, decision, implement, scriptedModel, submit, verdict } from "../kit/scripted-model.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget, type TinySkill } from "../kit/tiny-stack.ts";

const portfolio = ["anthropic", "playbook"] as const;
const base = new World([], { target: { ...simulated, agent: "portfolio", portfolio: [...portfolio] } }).state;
const experiment = (id: string, by: Experiment["by"], point: number | null): Experiment => ({
  ...base.seed,
  id,
  by,
  settled: {
    outcome: point === null ? "inconclusive" : "proven",
    reason: "",
    ratio: point === null ? null : { point, lo: point, hi: point, pairs: 2 },
    checkpoint: point === null ? "discard" : "leader",
  },
});
const turn = (id: string, of: Turn["of"], usd: number): Turn => ({
  ...{ id, role: "planner", provider: "anthropic", model: "m", of, reservedUsd: 0, reservedTokens: 0, usd },
  outcome: { status: "answered", reply: "", usage: { input: 1, output: 1, cacheRead: 0, cacheWrite: 0 } },
});
const state = (experiments: Experiment[], turns: Turn[] = []) => ({
  ...base,
  experiments,
  turns,
  leaders: ["seed", ...experiments.filter((x) => x.settled?.checkpoint === "leader").map((x) => x.id)],
});

test("each member is tried first once, in the target's order; then gain per dollar decides, and one that is rarely asked is asked again", () => {
  expect(nextMember(base)).toBe("anthropic");
  expect(nextMember(state([experiment("e1", "anthropic", null)]))).toBe("playbook");
  const dear = [turn("plan:1.0.1.1", null, 1), turn("implementer:e1.0.1.1", { experimentId: "e1", draft: 0, n: 1 }, 4)];
  const both = [experiment("e1", "anthropic", 1.2), experiment("e2", "playbook", 1.2)];
  expect(members(state(both, dear))).toMatchObject([
    { agent: "anthropic", experiments: 1, usd: 5, logGain: Math.log(1.2) },
    { agent: "playbook", experiments: 1, usd: 0, logGain: Math.log(1.2) },
  ]);
  expect(nextMember(state(both, dear))).toBe("playbook");
  // The playbook gains nothing more: after a while the other is asked again.
  const more = (n: number) => [...both, ...Array.from({ length: n }, (_, i) => experiment(`e${i + 3}`, "playbook", null))];
  const asked = [1, 5, 20].map((n) => nextMember(state(more(n), dear)));
  expect(asked.at(-1)).toBe("anthropic");
});

test("a member that stopped is not asked; when all have, nobody is", () => {
  const c = { ...state([experiment("e1", "anthropic", 2), experiment("e2", "playbook", null)]), stopped: { anthropic: "no money" } };
  expect(nextMember(c)).toBe("playbook");
  expect(nextMember({ ...c, stopped: { anthropic: "no money", playbook: "nothing left" } })).toBeNull();
});

test("a campaign of several agents over one backlog: each experiment by its member's own models, and one that stops leaves the others going", async () => {
  using dir = tempDir("portfolio");
  const skills: TinySkill[] = [
    { id: "head-fast", seam: "head", stated: 1.3, truth: 1.4 },
    { id: "threads", seam: "threading", stated: 1.2, truth: 1.3 },
  ];
  await using messages = await MessagesServer.start(
    scriptedModel({
      planner: [implement(), decision({ reason: "no more" })],
      implementer: [[call("write", { path: "seed/linear.cpp", content: "// new\n// speed: 2\n" }), submit()]],
      judge: [verdict("pass")],
      evaluator: [assess()],
    }),
  );
  await using chat = await ChatServer.start(() => ({ text: (decision({ reason: "I pass" }) as { reply: string }).reply }));
  await using real = await startCoordinator(dir.path, {
    skills,
    pausesMs: [10],
    anthropic: { apiKey: "k", baseUrl: messages.url },
    openai: { apiKey: null, baseUrl: chat.url, model: "claude-haiku-4-5" },
  });
  await using _agent = await real.agent("a1");
  const target = {
    ...tinyTarget,
    agent: "portfolio" as const,
    portfolio: ["anthropic" as const, "openai-compatible" as const, "playbook" as const],
    budget: { ...tinyTarget.budget, usd: 5 },
  };
  const actor = await real.coordinator.submit(target, { baselines: [], repeat: null });
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  const { state: ended } = actor;
  expect(ended.experiments.map((x) => [x.by, x.settled?.outcome])).toEqual([
    ["anthropic", "proven"],
    ["playbook", "proven"],
    ["playbook", "proven"],
  ]);
  expect(ended.stopped).toMatchObject({ "openai-compatible": "the planner: I pass", anthropic: "the planner: no more" });
  expect(ended.searchEnded).toMatch(/no member plans any more: .*playbook: every skill whose preconditions hold has been tried/);
  const cost = costOf(
    actor.events.map((e) => e.event),
    Date.now(),
  );
  expect(cost.portfolio.map((m) => [m.agent, m.experiments, m.usd > 0])).toEqual([
    ["anthropic", 1, true],
    ["openai-compatible", 0, true],
    ["playbook", 2, false],
  ]);
  expect(new Set(ended.turns.filter((t) => t.role === "planner").map((t) => t.model))).toEqual(
    new Set(["claude-opus-5-5", "claude-haiku-4-5"]),
  );
});
