import type { CampaignSummary } from "@vibeserve/shared";
import { champion, elapsedMs, SEED, type Campaign } from "../campaign/campaign.machine.ts";
import type { LiveLease } from "../fleet/lease-table.ts";

/** A campaign in one line. waits: what its running effects wait for, or what stopped it. Pure. */
export function summaryOf(c: Campaign, waits: readonly string[], leases: readonly LiveLease[], now: number): CampaignSummary {
  const crowned = champion(c);
  return {
    v: 1,
    kind: "campaign",
    campaign: c.id,
    target: c.target.name,
    ...stateOf(c, waits, leases),
    outcome: c.ended?.outcome ?? null,
    experiments: c.experiments.length,
    champion: crowned === SEED ? null : crowned,
    startedAt: c.createdAt,
    elapsedS: Math.max(0, elapsedMs(c, now)) / 1000,
    budgetS: c.target.budget.wallS,
  };
}

function stateOf(c: Campaign, waits: readonly string[], leases: readonly LiveLease[]): Pick<CampaignSummary, "state" | "reason"> {
  if (c.ended) return { state: "ended", reason: c.ended.reason };
  const open = Object.values(c.ledger).filter((job) => job.status === "open");
  const running = open.flatMap((job) =>
    leases.filter((l) => l.lease.jobId === job.id).map((l) => `${job.experiment} ${job.spec.kind} on ${l.lease.deviceId}`),
  );
  if (c.pausedAt) return { state: "paused", reason: running.length > 0 ? `finishes ${running.join(", ")}` : `paused: ${c.pausedFor}` };
  if (waits.length > 0) return { state: "waiting", reason: waits.join("; ") };
  if (running.length > 0) return { state: "running", reason: running.join(", ") };
  const queued = open[0];
  if (queued)
    return {
      state: "waiting",
      reason: `${queued.experiment} ${queued.spec.kind} waits for a free device of agent ${c.agent?.agentId ?? "?"}`,
    };
  return { state: "running", reason: "planning" };
}
