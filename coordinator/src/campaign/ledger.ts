import type { CampaignFact, Job, JobResult, JobSpec, Outcome } from "@vibeserve/shared";

/** Attempts of one job before the framework gives up on it: only failures that are not the candidate's are tried again (I8). */
export const MAX_ATTEMPTS = 3;

export interface JobEntry {
  id: string;
  experiment: string;
  spec: JobSpec;
  attempt: number;
  /** open: an attempt was requested and is not over. again: the last attempt is over without an answer, the next may start. over: answered. */
  status: "open" | "again" | "over";
  /** The accepted answer, once over. A job that used up its attempts is over with a failure that is not the candidate's. */
  outcome: Outcome | null;
  deviceId: string | null;
  requestedAt: number;
  endedAt: number;
}

/** Every job of a campaign by id: what was asked, which attempt is current, what the accepted answer was. Pure. */
export type Ledger = Readonly<Record<string, JobEntry>>;

export function requested(ledger: Ledger, job: Job): Ledger {
  const entry: JobEntry = {
    id: job.id,
    experiment: job.experiment,
    spec: job.spec,
    attempt: job.attempt,
    status: "open",
    outcome: null,
    deviceId: null,
    requestedAt: job.issuedAt,
    endedAt: 0,
  };
  return { ...ledger, [job.id]: entry };
}

/** A stale or duplicate result leaves the ledger as it is (I3): the entry must be open and the attempt current. */
export function settled(ledger: Ledger, result: JobResult, at: number): Ledger {
  const entry = ledger[result.jobId];
  if (entry?.status !== "open" || entry.attempt !== result.attempt) return ledger;
  const { outcome } = result;
  const blameless = outcome.status === "failed" && outcome.failure.attribution !== "candidate";
  const status = blameless && entry.attempt < MAX_ATTEMPTS ? "again" : "over";
  return { ...ledger, [entry.id]: { ...entry, status, outcome, deviceId: result.deviceId, endedAt: at } };
}

export function expired(ledger: Ledger, fact: Extract<CampaignFact, { type: "job.expired" }>, at: number): Ledger {
  const entry = ledger[fact.jobId];
  if (entry?.status !== "open" || entry.attempt !== fact.attempt) return ledger;
  const over = entry.attempt >= MAX_ATTEMPTS;
  const failure = {
    attribution: "harness" as const,
    code: "expired",
    message: `${entry.attempt} attempts expired; last: ${fact.why}`,
    logTail: "",
  };
  return {
    ...ledger,
    [entry.id]: { ...entry, status: over ? "over" : "again", outcome: over ? { status: "failed", failure } : null, endedAt: at },
  };
}
