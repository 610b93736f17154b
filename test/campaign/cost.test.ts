import type { CampaignEvent, CampaignFact, TurnOutcome } from "@vibeserve/shared";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { capReached, deviceCapReached, deviceS } from "../../coordinator/src/campaign/caps.ts";
import { costOf, SEARCH_END, UNDECIDED, type Row } from "../../coordinator/src/campaign/cost.ts";
import { committedTokens, committedTurns, committedUsd } from "../../coordinator/src/campaign/turns.ts";
import { target, World } from "./world.ts";

const SKILLS = [
  { id: "q4", seam: "linear" as const, stated: 3, truth: 2 },
  { id: "pool", seam: "threading" as const, stated: 2, truth: 1.5 },
];
const said = (input: number, output: number, cacheRead = 0, cacheWrite = 0): TurnOutcome => ({
  status: "answered",
  reply: "",
  usage: { input, output, cacheRead, cacheWrite },
});
const failed = (
  code: "lost" | "cut-off" | "rate-limited" | "refusal",
  usage: { input: number; output: number } | null = null,
): TurnOutcome => ({
  status: "failed",
  code,
  message: "",
  temporary: true,
  retryAfterMs: null,
  usage: usage && { ...usage, cacheRead: 0, cacheWrite: 0 },
});
const ask = (turnId: string, of?: string, more: Partial<Extract<CampaignFact, { type: "turn.requested" }>> = {}): CampaignFact => ({
  type: "turn.requested",
  turnId,
  role: of === undefined ? "planner" : "implementer",
  provider: "anthropic",
  model: "opus",
  promptDigest: "0".repeat(64),
  reservedUsd: 0.5,
  reservedTokens: 1_000,
  ...(of === undefined ? {} : { of: { experimentId: of, draft: 0, n: 1 } }),
  ...more,
});
const settle = (turnId: string, outcome: TurnOutcome, usd: number): CampaignFact => ({ type: "turn.settled", turnId, outcome, usd });

describe("what a campaign has cost", () => {
  it("is told by role, model and experiment; a planner's turn belongs to what was proposed next", () => {
    const w = new World(SKILLS);
    while (!w.state.backlog.length) w.run(1);
    for (const fact of [ask("plan.1"), settle("plan.1", said(100, 10, 300, 0), 0.1)]) w.append(fact);
    while (!w.state.experiments.length) w.run(1);
    for (const fact of [ask("impl.1", "e1", { model: "haiku" }), settle("impl.1", said(1, 2, 3, 4), 0.2), ask("plan.2"), ask("plan.2")])
      w.append(fact);
    expect(costOf(w.events, w.now).byExperiment.map((r) => r.name)).toEqual(["e1", UNDECIDED]);
    w.append({ type: "search.ended", reason: "enough" });
    w.append(settle("plan.2", failed("lost"), 0.5));
    w.append(settle("plan.2", said(9_999, 9_999), 9));
    const report = costOf(w.events, w.now);
    const short = (rows: Row[]) => rows.map((r) => [r.name, r.turns, r.reservedUsd, r.settledUsd]);
    expect(short(report.byRole)).toEqual([
      ["planner", 2, 1, 0.6],
      ["implementer", 1, 0.5, 0.2],
    ]);
    expect(short(report.byModel)).toEqual([
      ["opus", 2, 1, 0.6],
      ["haiku", 1, 0.5, 0.2],
    ]);
    expect(report.byExperiment.map((r) => [r.name, r.turns])).toEqual([
      ["e1", 2],
      [SEARCH_END, 1],
    ]);
    expect(report.total).toMatchObject({ input: 101, output: 12, cacheRead: 303, cacheWrite: 4, cachedShare: 303 / 408 });
    expect(report).toMatchObject({ lost: { turns: 1, usd: 0.5 }, cutOff: { turns: 0, usd: 0 }, open: { turns: 0 } });
  });

  it("counts the seconds of every result by the agent's clock, those that decided nothing too, and wall time without pauses", () => {
    const w = new World(SKILLS);
    while (!Object.keys(w.state.ledger).length) w.run(1);
    const requested = w.events.map((e) => e.fact).find((f) => f.type === "job.requested");
    if (!requested) throw new Error("no job");
    const late = { ...w.result(requested.job, w.answer(requested.job)), startedAt: 1_000, endedAt: 8_500 };
    w.append({ type: "job.settled", result: late, accepted: false, why: "late" });
    w.append({ type: "campaign.paused", reason: "asked for" });
    w.append({ type: "campaign.resumed", reason: "asked for" });
    const report = costOf(w.events, w.now + 5_000);
    expect(report.device).toEqual({
      totalS: 7.501,
      unacceptedS: 7.5,
      jobs: [{ experiment: "seed", job: "build", results: 2, seconds: 7.501 }],
    });
    // A World's event takes one second, so the pause did.
    expect(report).toMatchObject({ pausedS: 1, wallS: (w.now + 5_000 - (w.events[0]?.at ?? 0)) / 1000 - 1 });
  });

  it("prices a percent of what became the leader, and has no price where nothing did", () => {
    const none = new World([{ id: "bad", seam: "head", stated: 2, truth: 0.5 }]);
    for (const fact of [ask("p.1"), settle("p.1", said(1, 1), 1)]) none.append(fact);
    none.run();
    expect(costOf(none.events, none.now).accepted).toEqual({ leaders: [], gain: null, direct: false, percent: null, usdPerPercent: null });
    const w = new World(SKILLS);
    for (const fact of [ask("p.1"), settle("p.1", said(1, 1), 1)]) w.append(fact);
    w.run();
    const { accepted } = costOf(w.events, w.now);
    // 2 × 1.5 is 200 % more.
    expect(accepted.leaders).toEqual(["e1", "e2"]);
    expect(accepted.percent).toBeCloseTo(200, 6);
    expect(accepted.usdPerPercent).toBeCloseTo(1 / 200, 9);
  });

  it("adds up whatever the order: tables and total agree, and so do the log and the money that the campaign counts against its cap", () => {
    const outcome = fc.oneof(
      fc.tuple(fc.nat(9_999), fc.nat(9_999), fc.nat(9_999), fc.nat(9_999)).map(([i, o, r, c]) => said(i, o, r, c)),
      fc.constantFrom(failed("lost"), failed("cut-off"), failed("rate-limited"), failed("refusal", { input: 5, output: 7 })),
    );
    const id = fc.nat(5).map((n) => `t.${n}`);
    const cents = fc.nat(500).map((n) => n / 128);
    const fact = fc.oneof(
      fc
        .tuple(id, fc.constantFrom(undefined, "e1", "e2"), cents, fc.constantFrom("a", "b"))
        .map(([turn, of, reservedUsd, model]) => ask(turn, of, { reservedUsd, model })),
      fc.tuple(id, outcome, cents).map(([turn, o, usd]) => settle(turn, o, usd)),
      fc.constant<CampaignFact>({ type: "search.ended", reason: "" }),
      fc.constant<CampaignFact>({ type: "campaign.resumed", reason: "" }),
    );
    fc.assert(
      fc.property(fc.array(fact, { maxLength: 40 }), (facts) => {
        const w = new World(SKILLS);
        for (const f of facts) w.append(f);
        const report = costOf(w.events, w.now);
        for (const rows of [report.byRole, report.byModel, report.byExperiment])
          for (const key of ["turns", "input", "output", "cacheRead", "cacheWrite", "reservedUsd", "settledUsd"] as const)
            expect(rows.reduce((s, r) => s + r[key], 0)).toBe(report.total[key]);
        expect(report.total.settledUsd + report.open.reservedUsd).toBe(committedUsd(w.state.turns));
        expect(report.total.cachedShare ?? 0).toBeLessThanOrEqual(1);
      }),
      { numRuns: 200 },
    );
  });

  it("is read from any beginning of a log", () => {
    const w = new World(SKILLS);
    w.run();
    w.events.forEach((_, i) => expect(costOf(w.events.slice(0, i + 1), w.now).total.turns).toBe(0));
    const none: CampaignEvent[] = [];
    expect(() => costOf(none, 1)).toThrow(/an empty log/);
  });
});

describe("a cap", () => {
  const withTurns = (budget: Partial<typeof target.budget>, ...facts: CampaignFact[]) => {
    const w = new World(SKILLS, { target: { ...target, budget: { ...target.budget, usd: 10, ...budget } } });
    for (const f of facts) w.append(f);
    return w.state;
  };
  const next = { usd: 1, tokens: 500 };

  it.each([
    [{ usd: 1.4 }, /^may cost \$1\.0000, of \$1\.4 are \$0\.9000 left$/],
    [{ tokens: 1_499 }, /^may take 500 tokens, of 1499 are 499 left$/],
    [{ turns: 1 }, /^would be number 2, the budget has 1 turn$/],
  ])("stops a turn that may pass it, and says what it takes and what is left: %j", (budget, reason) => {
    expect(capReached(withTurns(budget, ask("t.1")), next)).toMatch(reason);
    expect(capReached(withTurns(budget), next)).toBeNull();
  });

  it("lets a turn through that just fits, and one of any size where there is none", () => {
    expect(capReached(withTurns({ usd: 1.5, tokens: 1_500, turns: 2 }, ask("t.1")), next)).toBeNull();
    expect(capReached(withTurns({}, ask("t.1")), { usd: 1, tokens: 1e12 })).toBeNull();
  });

  it("counts what is promised, what was billed and what may have been; a provider that was not reached has cost nothing", () => {
    const { turns } = withTurns(
      {},
      ...[ask("t.1"), settle("t.1", said(1, 2, 3, 4), 0.1), ask("t.2"), settle("t.2", failed("rate-limited"), 0)],
      ...[ask("t.3"), settle("t.3", failed("lost"), 0.5), ask("t.4"), settle("t.4", failed("refusal", { input: 20, output: 5 }), 0.1)],
      ask("t.5"),
    );
    expect(committedTokens(turns)).toBe(10 + 1_000 + 25 + 1_000);
    expect(committedTurns(turns)).toBe(4);
  });

  it("on device-seconds ends the search with the figures, and what was proved is crowned", () => {
    const run = (deviceS: number) => {
      const w = new World(SKILLS, { target: { ...target, budget: { ...target.budget, deviceS } } });
      w.workMs = 20_000;
      return w.run();
    };
    const free = run(1e6);
    expect(free.searchEnded).toMatch(/every skill/);
    // Two jobs of the seed, three each of two experiments, three of the crowning.
    expect(deviceS(free)).toBe(220);
    expect(deviceS(free, "e2")).toBe(60 + 60);
    const capped = run(272);
    expect(capped.searchEnded).toMatch(/^the next experiment takes about 60 s of device time and crowning 114 s, of 272 s are 172 s left$/);
    expect(capped.experiments).toHaveLength(1);
    expect(capped.champions.map((x) => x.experimentId)).toEqual(["e1"]);
  });

  it("on device-seconds takes what experiments on a leader have taken, once one has been measured", () => {
    const w = new World(SKILLS, { target: { ...target, budget: { ...target.budget, deviceS: 1_000 } } });
    w.workMs = 20_000;
    while (w.state.experiments.filter((x) => x.settled).length < 1) w.run(1);
    w.workMs = 100_000;
    while (w.state.experiments.filter((x) => x.settled).length < 2) w.run(1);
    expect(deviceCapReached(w.state, 300, 60)).toBeNull();
    expect(deviceCapReached(w.state, 301, 60)).toMatch(/about 300 s of device time and crowning 301 s, of 1000 s are 600 s left/);
  });
});
