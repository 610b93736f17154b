import { countOf, type JobSpec, type Outcome } from "@vibeserve/shared";
import type { Campaign } from "./campaign.machine.ts";
import type { Effect } from "./effect.ts";

/** Deterministic, so that a restart asks for the same job. */
export const jobId = (c: Pick<Campaign, "id">, experiment: string, step: string): string =>
  `${c.id}_${experiment}_${step.replace(/[^A-Za-z0-9-]/g, "-")}`;

/** Ids of an experiment's jobs, oldest first. */
export const jobsOf = (c: Campaign, experiment: string): string[] =>
  Object.values(c.ledger).flatMap((j) => (j.experiment === experiment ? [j.id] : []));

/** How a step of an experiment was answered; null: not yet. */
export function jobOutcome(c: Pick<Campaign, "id" | "ledger">, experiment: string, step: string): Outcome | null {
  const entry = c.ledger[jobId(c, experiment, step)];
  return entry?.status === "over" ? entry.outcome : null;
}

/** Longest time an attempt may take once it has its lease, in ms: several times what the slowest machine met so far needed. */
const DEADLINE_MS: Record<JobSpec["kind"], number> = {
  build: 300_000,
  check: 400_000,
  bench: 600_000,
  baseline: 1_800_000,
  profile: 300_000,
  exec: 200_000,
};

/** What serves the candidate: those take all devices of the target. */
const SERVES: readonly JobSpec["kind"][] = ["check", "bench", "profile", "baseline"];

/** The dispatch of a job's next attempt, or nothing while one is open. */
export function jobEffect(c: Campaign, experiment: string, step: string, spec: JobSpec): Effect[] {
  const id = jobId(c, experiment, step);
  const entry = c.ledger[id];
  const attempt = entry === undefined ? 1 : entry.status === "again" ? entry.attempt + 1 : entry.attempt;
  const job = {
    v: 1 as const,
    kind: "job" as const,
    id,
    campaign: c.id,
    experiment,
    attempt,
    ...(SERVES.includes(spec.kind) ? countOf(c.target) : {}),
    deadlineMs: DEADLINE_MS[spec.kind],
    spec: entry?.spec ?? spec,
  };
  return [{ type: "dispatch", id: `${id}.${attempt}`, job }];
}
