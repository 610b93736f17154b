import type { CampaignFact } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import type { Metrics } from "./metrics.ts";

/** What rules look at. */
const REASONS = ["malformed", "subject", "signature", "unstorable", "unknown-campaign", "stale", "impossible"];
const EVENTS = ["broker.died", "broker.restart-failed", "effect.failed", "campaign.failed", "campaign.lost", "lease.lost", "agent.left"];

/**
 * What is counted as it happens, from two places that see everything once: the facts that campaigns record and the coordinator's own log. Counted since this process
 * began, as Prometheus has it; an increment of a number in memory for each.
 */
export class Counted {
  readonly #metrics: Metrics;

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
    for (const reason of REASONS) metrics.inc("vibeserve_results_refused_total", { reason }, 0);
    for (const event of EVENTS) metrics.inc("vibeserve_log_events_total", { event }, 0);
  }

  /** The event was logged. */
  logged(event: string, facts: Record<string, unknown>): void {
    this.#metrics.inc("vibeserve_log_events_total", { event });
    if (event === "result.refused") this.#metrics.inc("vibeserve_results_refused_total", { reason: String(facts["reason"]) });
    if (event === "broker.adopted" || event === "broker.replaced")
      this.#metrics.inc("vibeserve_orphaned_processes_total", { fate: event.slice("broker.".length) });
  }

  /** The fact is in a campaign's log; `state` is with it. */
  recorded(fact: CampaignFact, { ledger, agent, device }: Pick<Campaign, "ledger" | "agent" | "device">): void {
    const simulated = String(device?.simulated ?? false);
    if (fact.type === "job.expired") {
      const kind = ledger[fact.jobId]?.spec.kind ?? "unknown";
      this.#metrics.inc("vibeserve_jobs_settled_total", {
        kind,
        outcome: "expired",
        attribution: fact.attribution ?? "harness",
        simulated,
      });
    }
    if (fact.type !== "job.settled") return;
    const { result, accepted, verdict } = fact;
    if (!accepted || verdict?.code === "impossible-numbers")
      this.#metrics.inc("vibeserve_results_refused_total", { reason: accepted ? "impossible" : "stale" });
    if (!accepted) return;
    const { outcome } = result;
    const kind = ledger[result.jobId]?.spec.kind ?? "unknown";
    const attribution = verdict?.attribution ?? (outcome.status === "failed" ? outcome.failure.attribution : "none");
    this.#metrics.inc("vibeserve_jobs_settled_total", { kind, outcome: outcome.status, attribution, simulated });
    const seconds = Math.max(0, result.endedAt - result.startedAt) / 1000;
    this.#metrics.observe("vibeserve_job_duration_seconds", seconds, { pool: agent?.pools[0] ?? "", kind, simulated });
    if (outcome.status === "built") this.#metrics.inc("vibeserve_builds_total", { cached: String(outcome.cached) });
  }
}
