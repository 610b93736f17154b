import { describe, expect, it } from "vitest";
import type { CampaignEvent } from "@vibeserve/shared";
import { overheads, repeats, tailFrom, turnName, type Exchange } from "../bench-agents/exchanges.ts";
import { tokensToChampion } from "../bench-agents/first-champion.ts";

const exchange = (campaign: string, id: string, at: number, sentAt: number | null): Exchange => ({
  campaign,
  turn: turnName(id),
  at,
  sentAt,
});

describe("what the bench counts of exchanges with models", () => {
  it("tells turns apart by their ids, and refuses what is none", () => {
    expect(turnName("implementer:e12.0.5.2")).toEqual({ role: "implementer", experiment: 12, conversation: "implementer:e12.0", n: 5 });
    expect(turnName("plan:1.7.2.1")).toEqual({ role: "planner", experiment: 7, conversation: "plan:7", n: 2 });
    expect(() => turnName("implementer:e12")).toThrow("no turn's id: implementer:e12");
  });

  it("takes what lies between a whole answer and the next request of the same conversation, and of no other", () => {
    const all = [
      exchange("c1", "implementer:e1.0.1.1", 0, 10),
      exchange("c2", "implementer:e1.0.1.1", 5, 11),
      exchange("c1", "implementer:e1.0.2.1", 13, 20),
      exchange("c2", "implementer:e1.0.2.1", 18, null),
      exchange("c2", "implementer:e1.0.2.2", 40, 41),
      exchange("c1", "judge:e1.1.1.1", 90, 91),
    ];
    expect(overheads(all).map(({ ms, turn }) => [ms, turn.n])).toEqual([
      [3, 1],
      [7, 1],
    ]);
    expect(tailFrom(all)).toBe(13);
  });

  it("counts a turn as paid twice only if it was asked again after its whole answer had been sent", () => {
    const hung = [exchange("c1", "judge:e1.1.2.1", 0, null), exchange("c1", "judge:e1.1.2.2", 50, 60)];
    expect(repeats(hung)).toEqual([]);
    const paid = [exchange("c1", "judge:e1.1.1.1", 0, 9), exchange("c1", "judge:e1.1.1.2", 70, null)];
    expect(repeats([...hung, ...paid])).toEqual(["c1 judge:e1.1.1"]);
    expect(repeats([exchange("c2", "judge:e1.1.1.1", 80, 90), ...paid.slice(0, 1)])).toEqual([]);
  });

  it("adds all tokens up to the first champion", () => {
    const settled = {
      type: "turn.settled",
      turnId: "t",
      usd: 0,
      outcome: { status: "answered", usage: { input: 1, output: 2, cacheRead: 30, cacheWrite: 400 } },
    };
    const events = (...facts: object[]) => facts.map((fact) => ({ fact })) as CampaignEvent[];
    const failed = { ...settled, outcome: { status: "failed", usage: null } };
    expect(tokensToChampion(events(settled, failed, settled, { type: "champion.crowned" }, settled))).toBe(866);
    expect(tokensToChampion(events(settled))).toBeNull();
  });
});
