import type { CampaignFact, JobResult } from "@vibeserve/shared";

/** An honest agent has one such result an attempt: what it did while its lease ended. A job has six attempts at the most. */
const PER_JOB = 8;
const PER_CAMPAIGN = 64;
/** Of all of them in one campaign, as JSON. A comparison with its samples has some 20 kB. */
const MAX_BYTES = 1024 * 1024;

interface Kept {
  results: number;
  bytes: number;
  readonly jobs: Map<string, number>;
}

/**
 * How much of what changes nothing (job.settled, not accepted) an agent may have kept in one campaign's log.
 *   V1. Bounded by job, by campaign and in bytes, for each agent by itself.
 *   V2. What is beyond is counted; the count is recorded at the first and whenever it has doubled, so that a flood of n costs log2(n) facts.
 *   V3. All is derived from the log: after a restart what was kept counts on, and so does the last count that was recorded.
 */
export class Evidence {
  readonly #kept = new Map<string, Kept>();
  readonly #dropped = new Map<string, { count: number; told: number }>();

  /** A fact of the log, in its order. */
  follow(fact: CampaignFact): void {
    if (fact.type === "evidence.dropped") {
      const { count = 0 } = this.#dropped.get(fact.agentId) ?? {};
      this.#dropped.set(fact.agentId, { count: Math.max(count, fact.dropped), told: fact.dropped });
    }
    if (fact.type !== "job.settled" || fact.accepted) return;
    const { agentId, jobId } = fact.result;
    const kept = this.#kept.get(agentId) ?? { results: 0, bytes: 0, jobs: new Map<string, number>() };
    this.#kept.set(agentId, kept);
    kept.results++;
    kept.bytes += JSON.stringify(fact.result).length;
    kept.jobs.set(jobId, (kept.jobs.get(jobId) ?? 0) + 1);
  }

  /** Whether the log may keep it. */
  hasRoom(result: JobResult): boolean {
    const kept = this.#kept.get(result.agentId);
    const bytes = JSON.stringify(result).length;
    if (!kept) return bytes <= MAX_BYTES;
    return kept.results < PER_CAMPAIGN && (kept.jobs.get(result.jobId) ?? 0) < PER_JOB && kept.bytes + bytes <= MAX_BYTES;
  }

  /** Counts it; the fact that tells it, or null where the last one is enough. */
  drop({ agentId, jobId }: Pick<JobResult, "agentId" | "jobId">): Extract<CampaignFact, { type: "evidence.dropped" }> | null {
    const { count, told } = this.#dropped.get(agentId) ?? { count: 0, told: 0 };
    const dropped = count + 1;
    this.#dropped.set(agentId, { count: dropped, told });
    return dropped < 2 * told ? null : { type: "evidence.dropped", agentId, jobId, dropped };
  }
}
