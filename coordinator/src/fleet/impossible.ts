import { improvement, type JobResult } from "@vibeserve/shared";

/** No stack here was ever 1,000 times its parent; a number ten times beyond that is an error of whoever made it. */
const MAX_RATIO = 1e4;
/** A mean over pairs and a quotient of medians over runs differ by the spread of the runs, which a quiet device keeps far below this factor. */
const MAX_MISMATCH = 3;
const ROUNDING = 1 + 1e-6;

/** Why no device can have measured this; null: it may be true. What is in it is kept as evidence, and counts for nothing. */
export function impossible({ outcome, leaseToken }: Pick<JobResult, "outcome" | "leaseToken">): string | null {
  if (outcome.status !== "measured") return null;
  const { comparison: c, challenger, champion } = outcome;
  for (const [arm, m] of [["challenger", challenger] as const, ["champion", champion] as const]) {
    if (!(m.value > 0)) return `the ${arm}'s ${m.metric.name} is ${m.value} ${m.metric.unit}`;
    if (m.leaseToken !== leaseToken) return `the ${arm} was measured under lease token ${m.leaseToken}, the result is of ${leaseToken}`;
  }
  if (!(c.lo <= c.point * ROUNDING && c.point <= c.hi * ROUNDING))
    return `its interval [${c.lo}, ${c.hi}] does not hold its own ratio, ${c.point}`;
  if (!(c.point >= 1 / MAX_RATIO && c.point <= MAX_RATIO)) return `a ratio of ${c.point} is beyond what any stack can gain`;
  if (c.ratios.length > 0 && (c.point > Math.max(...c.ratios) * ROUNDING || c.point * ROUNDING < Math.min(...c.ratios)))
    return `its ratio, ${c.point}, lies outside its own pairs'`;
  const quotient = improvement(challenger.metric, challenger.value, champion.value);
  const off = Math.max(quotient / c.point, c.point / quotient);
  return off > MAX_MISMATCH ? `its arms' rates have the ratio ${quotient}, its pairs ${c.point}` : null;
}
