import { SEED, type Campaign } from "./campaign.machine.ts";
import { committedTokens, committedTurns, committedUsd } from "./turns.ts";

/**
 * Caps of a campaign's budget (I6): what is promised counts as spent, and what may not fit is not begun. Each says why in words that name what it would take
 * and what is left. Pure.
 */

/** Why the next turn of a model must not be asked for, as the end of "the next turn of MODEL …"; null: it fits. next: the most that it can take. */
export function capReached({ target, turns }: Pick<Campaign, "target" | "turns">, next: { usd: number; tokens: number }): string | null {
  const { usd, tokens, turns: most } = target.budget;
  const leftUsd = usd - committedUsd(turns);
  if (next.usd > leftUsd) return `may cost $${next.usd.toFixed(4)}, of $${usd} are $${leftUsd.toFixed(4)} left`;
  if (tokens !== undefined) {
    const left = tokens - committedTokens(turns);
    if (next.tokens > left) return `may take ${next.tokens} tokens, of ${tokens} are ${left} left`;
  }
  const taken = committedTurns(turns);
  return most !== undefined && taken >= most
    ? `would be number ${taken + 1}, the budget has ${most} ${most === 1 ? "turn" : "turns"}`
    : null;
}

/** The same for all campaigns together: spentUsd of them all, what is promised included; most: null where nobody set a bound. */
export function fleetCapReached(most: number | null, spentUsd: number, nextUsd: number): string | null {
  const left = (most ?? Infinity) - spentUsd;
  return nextUsd > left ? `may cost $${nextUsd.toFixed(4)}, of $${most ?? 0} for all campaigns are $${left.toFixed(4)} left` : null;
}

/** Seconds that agents worked on jobs of the campaign, or of one experiment, as accepted results say, N devices N times: waiting in a queue is not among them. */
export function deviceS({ ledger }: Pick<Campaign, "ledger">, experiment?: string): number {
  const mine = Object.values(ledger).filter((job) => experiment === undefined || job.experiment === experiment);
  return mine.reduce((sum, job) => sum + job.busyMs, 0) / 1000;
}

/** Why another experiment does not fit the cap on device-seconds; null: it fits, or there is none. guessS: what one takes before any has been measured; it and crowningS by the clock, on as many devices as the target has. */
export function deviceCapReached(c: Pick<Campaign, "target" | "ledger" | "experiments">, crowningS: number, guessS: number): string | null {
  const most = c.target.budget.deviceS;
  if (most === undefined) return null;
  // A first one pays for the seed's slow side, no later one does.
  const measured = c.experiments.filter((x) => x.settled && x.hypothesis.parent !== SEED).map((x) => deviceS(c, x.id));
  const { deviceCount = 1 } = c.target;
  const nextS = measured.length > 0 ? measured.reduce((a, b) => a + b, 0) / measured.length : guessS * deviceCount;
  const crownS = crowningS * deviceCount;
  const left = most - deviceS(c);
  return nextS + crownS > left
    ? `the next experiment takes about ${Math.round(nextS)} s of device time and crowning ${Math.round(crownS)} s, of ${most} s are ${Math.round(left)} s left`
    : null;
}
