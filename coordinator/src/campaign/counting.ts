import type { CampaignFact, JobResult, Verdict } from "@vibeserve/shared";
import type { Campaign } from "./campaign.machine.ts";
import type { JobEntry } from "./ledger.ts";

/** Whose an attempt without an answer may be. */
export type Blameless = "device" | "harness" | "network";

/** Why this attempt is not the one that counts; null: it is. */
export function overReason(c: Campaign, jobId: string, attempt: number): string | null {
  const entry = c.ledger[jobId];
  if (c.ended) return `campaign ${c.id} has ended`;
  if (!entry) return `job ${jobId} was never requested`;
  if (entry.attempt !== attempt) return `attempt ${attempt} is not the current one, ${entry.attempt}`;
  if (entry.status !== "open") return `attempt ${attempt} of job ${jobId} is over`;
  return null;
}

/**
 * The fact that a result becomes (I3): accepted where its attempt and lease are current, else evidence; null where the log has these very bytes. `stale`: why its lease
 * does not count, null if it is current; `judge`: what an accepted one counts as, null where that is what its agent said.
 */
export function settling(
  c: Campaign,
  known: ReadonlySet<string>,
  result: JobResult,
  stale: string | null,
  judge?: (entry: JobEntry) => Verdict | null,
): Extract<CampaignFact, { type: "job.settled" }> | null {
  // A crash between append and acknowledgement ends here.
  if (known.has(result.sig)) return null;
  const why = overReason(c, result.jobId, result.attempt) ?? stale;
  const entry = c.ledger[result.jobId];
  const verdict = why === null && entry ? judge?.(entry) : null;
  return {
    ...{ type: "job.settled" as const, result, accepted: why === null, why: why ?? "current attempt and lease" },
    ...(verdict ? { verdict } : {}),
  };
}

/** The fact that an attempt without an answer becomes; null: it is over already. */
export function expiring(c: Campaign, jobId: string, attempt: number, why: string, attribution?: Blameless): CampaignFact | null {
  if (overReason(c, jobId, attempt) !== null) return null;
  return { type: "job.expired", jobId, attempt, why, ...(attribution === undefined ? {} : { attribution }) };
}
