import type { AgentKind } from "@vibeserve/shared";
import type { Campaign } from "./campaign.machine.ts";

/** How a member of a portfolio has done: experiments that it planned and carried out, ln of what its leaders gained over their parents, dollars. */
export interface Member {
  agent: AgentKind;
  experiments: number;
  logGain: number;
  usd: number;
  /** Why it plans no more; null: it may. */
  stopped: string | null;
}

/** An experiment without a model costs device time too: so little that a model's dollars weigh more, and not nothing. */
const LEAST_USD = 0.01;

export function members(c: Campaign): Member[] {
  const { agent, portfolio = [] } = c.target;
  const all: AgentKind[] = agent === "portfolio" ? portfolio : [agent];
  return all.map((name) => {
    const mine = c.experiments.filter((x) => x.by === name);
    const leaders = mine.filter((x) => c.leaders.includes(x.id));
    const turns = c.turns.filter((t) => t.provider === name || t.provider.startsWith(`${name}:`));
    return {
      agent: name,
      experiments: mine.length,
      logGain: leaders.reduce((sum, x) => sum + Math.log(x.settled?.ratio?.point ?? 1), 0),
      usd: turns.reduce((sum, t) => sum + t.usd, 0),
      stopped: c.stopped[name] ?? null,
    };
  });
}

/**
 * Who plans next: UCB1 (Auer, Cesa-Bianchi, Fischer 2002) over gain per dollar, scaled so that the best member's is 1; each member first once, in the target's
 * order. Null: all have stopped.
 */
export function nextMember(c: Campaign): AgentKind | null {
  const open = members(c).filter((m) => m.stopped === null);
  const untried = open.find((m) => m.experiments === 0);
  if (untried) return untried.agent;
  const rate = (m: Member): number => m.logGain / Math.max(m.usd, LEAST_USD * m.experiments);
  const best = Math.max(...open.map(rate), Number.MIN_VALUE);
  const n = open.reduce((sum, m) => sum + m.experiments, 0);
  const score = (m: Member): number => rate(m) / best + Math.sqrt((2 * Math.log(n)) / m.experiments);
  return open.reduce<Member | null>((a, b) => (a === null || score(b) > score(a) ? b : a), null)?.agent ?? null;
}
