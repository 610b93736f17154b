import type { TurnUsage } from "@vibeserve/shared";
import { costUsd, priceOf, worstUsd, type Prices } from "../prices.ts";

/** A request to the provider that costs money. maxTokens: as it asks itself; null: it names no bound on the answer. */
export interface Ask {
  model: string | null;
  bytes: number;
  maxTokens: number | null;
}

/** Who holds the money. Both are called at once, in the order in which things happen. */
export interface Purse {
  /** null: it may be asked; or why not, which the CLI is told (402). */
  admit(ask: Ask): string | null;
  /** Once for each ask that was admitted. usage null: the answer broke off or says nothing of tokens; it may have been billed in full. */
  settled(ask: Ask, usage: TurnUsage | null): void;
}

/** The longest answer that today's models give, in tokens: what a request without a bound is taken for. */
const LONGEST_ANSWER = 128_000;

/** A purse with so many dollars. Never more is spent, whatever the CLI does: the worst of each request is set aside before it is sent. */
export function purse(prices: Prices, limit: () => number): Purse & { readonly spentUsd: number } {
  const open = new Map<Ask, number>();
  let spentUsd = 0;
  return {
    get spentUsd() {
      return spentUsd;
    },
    admit(ask) {
      const price = priceOf(prices, ask.model);
      if (!price) return `no price is known for model ${String(ask.model)}; add it to prices.yaml in the data folder`;
      const limitUsd = limit();
      const worst = worstUsd(price, ask.bytes, ask.maxTokens ?? LONGEST_ANSWER);
      const leftUsd = limitUsd - spentUsd - [...open.values()].reduce((sum, usd) => sum + usd, 0);
      if (worst > leftUsd) return `this request may cost $${worst.toFixed(4)}, of $${limitUsd} are $${leftUsd.toFixed(4)} left`;
      open.set(ask, worst);
      return null;
    },
    settled(ask, usage) {
      const price = priceOf(prices, ask.model);
      spentUsd += usage && price ? costUsd(price, usage) : (open.get(ask) ?? 0);
      open.delete(ask);
    },
  };
}
