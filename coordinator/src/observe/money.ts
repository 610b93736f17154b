import { committedUsd, type Turn } from "../campaign/turns.ts";
import type { Sample } from "./metrics.ts";
import { Tally } from "./tally.ts";

interface Spent {
  committedUsd: number;
  usd: Sample[];
  tokens: Sample[];
  turns: Sample[];
}

/** What models took, from campaigns' states. A state is never changed, so one that was added up is not added up again. */
export class Money {
  readonly #known = new WeakMap<readonly Turn[], Spent>();

  of(turns: readonly Turn[]): Spent {
    const known = this.#known.get(turns);
    if (known) return known;
    const over = turns.flatMap((turn) => (turn.outcome ? [{ ...turn, outcome: turn.outcome }] : []));
    const usage = (of: (typeof over)[number]) => of.outcome.usage ?? { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 };
    const spent: Spent = {
      committedUsd: committedUsd(turns),
      usd: over.map(({ role, usd }) => [{ role }, usd]),
      turns: over.map(({ role, outcome: o }) => [{ role, status: o.status === "failed" ? o.code : o.status }, 1]),
      tokens: over.flatMap((turn) => {
        const { input, output, cacheRead, cacheWrite } = usage(turn);
        const by = { input, output, "cache-read": cacheRead, "cache-write": cacheWrite };
        return Object.entries(by).map(([direction, n]): Sample => [{ role: turn.role, direction }, n]);
      }),
    };
    const summed = sum([spent]);
    this.#known.set(turns, summed);
    return summed;
  }

  sum(campaigns: readonly (readonly Turn[])[]): Spent {
    return sum(campaigns.filter((turns) => turns.length > 0).map((turns) => this.of(turns)));
  }
}

function sum(all: readonly Spent[]): Spent {
  const by = (of: (spent: Spent) => readonly Sample[]): Sample[] => {
    const tally = new Tally();
    for (const [labels, value] of all.flatMap(of)) tally.add(labels, value);
    return [...tally];
  };
  return {
    committedUsd: all.reduce((n, { committedUsd: usd }) => n + usd, 0),
    usd: by((s) => s.usd),
    tokens: by((s) => s.tokens),
    turns: by((s) => s.turns),
  };
}
