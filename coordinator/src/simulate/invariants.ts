import { isDeepStrictEqual } from "node:util";
import type { CampaignEvent, JobResult, Outcome } from "@vibeserve/shared";
import { fold, type Campaign } from "../campaign/campaign.machine.ts";

/**
 * What a campaign's log must say whatever agents and network did, each breach in words. `state`: what the coordinator held when the log was read; `tokens`: the last that
 * was given for "<job>.<attempt>".
 *   I3. Only the current attempt under its current token changes anything, once.
 *   I5. The log alone gives the state.
 *   I8. Only what a candidate did itself counts against it.
 */
export function breaches(events: readonly CampaignEvent[], state: Campaign, tokens: ReadonlyMap<string, number>): string[] {
  const found: string[] = [];
  const accepted = new Map<string, JobResult>();
  let c: Campaign | null = null;
  for (const event of events) {
    const { fact, seq } = event;
    const before: Campaign | null = c;
    c = fold(c, event);
    if (fact.type !== "job.settled" || !before) continue;
    const { jobId, attempt, leaseToken } = fact.result;
    const name = `event ${seq}, job ${jobId}, attempt ${attempt}`;
    if (!fact.accepted) {
      if (c.ledger !== before.ledger) found.push(`I3: ${name}: refused (${fact.why}), and it changed the campaign`);
      continue;
    }
    const entry = before.ledger[jobId];
    if (before.ended || entry?.status !== "open" || entry.attempt !== attempt)
      found.push(`I3: ${name}: accepted, and not the open attempt`);
    if (accepted.has(`${jobId}.${attempt}`)) found.push(`I3: ${name}: accepted twice`);
    if (tokens.get(`${jobId}.${attempt}`) !== leaseToken) found.push(`I3: ${name}: accepted under token ${leaseToken}, not the last`);
    accepted.set(`${jobId}.${attempt}`, fact.result);
  }
  if (!c) return ["I5: the log is empty"];
  if (!isDeepStrictEqual(c, state)) found.push(`I5: the fold of ${events.length} events is not the coordinator's state`);
  for (const { id, attempt, status, outcome } of Object.values(c.ledger))
    if (status === "over" && against(outcome) && !against(accepted.get(`${id}.${attempt}`)?.outcome ?? null))
      found.push(`I8: job ${id} counts against its candidate, and no accepted result says so`);
  for (const { id, settled } of c.experiments) {
    const own = Object.values(c.ledger).some((e) => e.experiment === id && e.status === "over" && against(e.outcome));
    if (settled?.outcome === "implementation_failed" && !own) found.push(`I8: experiment ${id} failed, and none of its jobs did by itself`);
    if (settled?.outcome === "blocked" && own) found.push(`I8: experiment ${id} is blocked, and its candidate failed by itself`);
  }
  return found;
}

const against = (outcome: Outcome | null): boolean =>
  outcome?.status === "failed" ? outcome.failure.attribution === "candidate" : outcome?.status === "checked" && !outcome.report.ok;
