import { expect, test } from "vitest";
import type { CampaignEvent, CampaignFact } from "@vibeserve/shared";
import { fold, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import { breaches } from "../../coordinator/src/simulate/invariants.ts";
import { World } from "../campaign/world.ts";

const world = new World([
  { id: "q4", seam: "linear", stated: 2, truth: 2 },
  { id: "bad", seam: "head", stated: 1.5, truth: 1, breaks: "check" },
]);
const state = world.run();
const tokens = new Map<string, number>(
  world.events.flatMap(({ fact }) => (fact.type === "job.settled" ? [[`${fact.result.jobId}.1`, 1]] : [])),
);

/** The same log with other facts; each event keeps its number and time. */
function altered(change: (fact: CampaignFact) => CampaignFact[]): { events: CampaignEvent[]; state: Campaign } {
  const facts = world.events.flatMap((event) => change(event.fact).map((fact) => ({ ...event, fact })));
  const events = facts.map((event, i) => ({ ...event, seq: i + 1 }));
  let c: Campaign | null = null;
  for (const event of events) c = fold(c, event);
  if (!c) throw new Error("an empty log");
  return { events, state: c };
}
const found = (of: { events: CampaignEvent[]; state: Campaign }, given = tokens) => breaches(of.events, of.state, given);

test("the log of a campaign that went well holds I3, I5 and I8, also with refused results in it", () => {
  expect(state.ended?.outcome).toBe("proven");
  expect(breaches(world.events, state, tokens)).toEqual([]);
  const evidence = altered((fact) => (fact.type === "job.settled" ? [fact, { ...fact, accepted: false, why: "twice" }] : [fact]));
  expect(found(evidence)).toEqual([]);
});

test("each breach is named: accepted twice, under an old token, another state, and a verdict that nobody's answer bears out", () => {
  expect(found(altered((fact) => (fact.type === "job.settled" ? [fact, fact] : [fact])))).toContainEqual(
    expect.stringMatching(/^I3: event \d+, job \S+, attempt 1: accepted twice$/),
  );
  expect(found({ events: world.events, state }, new Map([...tokens.keys()].map((key) => [key, 2])))).toContainEqual(
    expect.stringMatching(/^I3: .*accepted under token 1, not the last$/),
  );
  expect(breaches(world.events, { ...state, lastAt: 1 }, tokens)).toEqual([
    `I5: the fold of ${world.events.length} events is not the coordinator's state`,
  ]);
  const blamed = altered((fact) =>
    fact.type === "experiment.settled" && fact.outcome === "proven" ? [{ ...fact, outcome: "implementation_failed", ratio: null }] : [fact],
  );
  expect(found(blamed)).toContainEqual(expect.stringMatching(/^I8: experiment \S+ failed, and none of its jobs did by itself$/));
  const excused = altered((fact) =>
    fact.type === "experiment.settled" && fact.outcome === "implementation_failed" ? [{ ...fact, outcome: "blocked" }] : [fact],
  );
  expect(found(excused)).toContainEqual(expect.stringMatching(/^I8: experiment \S+ is blocked, and its candidate failed by itself$/));
});
