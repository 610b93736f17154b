import {
  blamedDevice,
  devicesOf,
  type CampaignFact,
  type Failure,
  type Job,
  type JobResult,
  type JobSpec,
  type Outcome,
  type Verdict,
} from "@vibeserve/shared";
import { SEED } from "./campaign.machine.ts";

/**
 * Failures of one job that are not the candidate's (I8) before the framework gives it up, counted apart for the device and for all else (harness,
 * network, attempts that expired): what three attempts did not get past mostly stays. The candidate's own failure is an answer, and the first ends the job.
 */
export const MAX_FAILURES = 3;
/** Where giving up would decide something on a failure that isn't the candidate's: the campaign is paused after MAX_FAILURES, and this is the end. */
export const MAX_VITAL_FAILURES = 2 * MAX_FAILURES;

export interface JobEntry extends Pick<Job, "id" | "experiment" | "spec" | "attempt"> {
  /**
   * open: an attempt was requested and is not over. again: the last attempt is over without an answer, the next may start. stuck: so it is, but first
   * the campaign is to be paused, and resumed by someone who has looked at the device. over: answered.
   */
  status: "open" | "again" | "stuck" | "over";
  failures: { device: number; other: number };
  /** What the last attempt answered; the accepted answer once over. A job that used up its attempts is over with a failure that is not the candidate's. */
  outcome: Outcome | null;
  /** The device whose failure of this job was held back until a second one has tried. */
  doubted: string | null;
  /** Devices that failed it for a reason that may be theirs: the next attempt goes elsewhere where it can. */
  avoid: readonly string[];
  /** That the last answer came from; empty: there is none yet. */
  devices: readonly string[];
  requestedAt: number;
  endedAt: number;
  /** What agents worked on it by their own clocks, over all attempts with an accepted result, ms; N devices count N times. */
  busyMs: number;
}

/** Every job of a campaign by id: what was asked, which attempt is current, what the accepted answer was. Pure. */
export type Ledger = Readonly<Record<string, JobEntry>>;

export function requested(ledger: Ledger, job: Job): Ledger {
  const { id, experiment, spec, attempt, issuedAt: requestedAt } = job;
  const before = ledger[id] ?? { failures: { device: 0, other: 0 }, doubted: null, avoid: [], busyMs: 0 };
  const asked = { id, experiment, spec, attempt, requestedAt };
  return { ...ledger, [id]: { ...before, ...asked, status: "open", outcome: null, devices: [], endedAt: 0 } };
}

/** What a job is for, where its kind alone does not say. */
export const purposeOf = (spec: JobSpec): string => (spec.kind === "bench" ? spec.purpose : spec.kind === "check" ? spec.level : spec.kind);

/** A stale or duplicate result leaves the ledger as it is (I3): the entry must be open and the attempt current. */
export function settled(ledger: Ledger, result: JobResult, at: number, verdict?: Verdict): Ledger {
  const { jobId, attempt, outcome, deviceId, startedAt } = result;
  const devices = devicesOf(result);
  const blamed = blamedDevice(result);
  const failure = blameless(outcome, verdict);
  return ended(ledger, jobId, attempt, (entry) => ({
    ...(verdict?.secondDevice === true
      ? { ...entry, status: "again", outcome, doubted: deviceId, avoid: [...entry.avoid, ...devices] }
      : failure
        ? failed(entry, failure, blamed === null ? devices : [blamed])
        : { ...entry, status: "over", outcome }),
    devices,
    endedAt: at,
    busyMs: entry.busyMs + devices.length * Math.max(0, result.endedAt - startedAt),
  }));
}

export function expired(ledger: Ledger, fact: Extract<CampaignFact, { type: "job.expired" }>, at: number): Ledger {
  const message = `attempt ${fact.attempt} expired: ${fact.why}`;
  const failure: Failure = { attribution: fact.attribution ?? "harness", code: "expired", message, logTail: "" };
  return ended(ledger, fact.jobId, fact.attempt, (entry) => ({ ...failed(entry, failure, []), endedAt: at }));
}

/** The campaign goes on after a pause: so may what it was paused for. */
export function resumed(ledger: Ledger): Ledger {
  return Object.fromEntries(Object.entries(ledger).map(([id, e]) => [id, e.status === "stuck" ? { ...e, status: "again" } : e]));
}

/** Answers that don't count any more: the jobs may start again, elsewhere where that can be. */
export function suspected(ledger: Ledger, jobs: readonly string[], deviceId: string): Ledger {
  const again = (e: JobEntry): JobEntry => ({ ...e, status: "again", avoid: [...new Set([...e.avoid, deviceId])] });
  return { ...ledger, ...Object.fromEntries(jobs.flatMap((id) => (ledger[id]?.status === "over" ? [[id, again(ledger[id])]] : []))) };
}

function ended(ledger: Ledger, jobId: string, attempt: number, next: (entry: JobEntry) => JobEntry): Ledger {
  const entry = ledger[jobId];
  return entry?.status === "open" && entry.attempt === attempt ? { ...ledger, [jobId]: next(entry) } : ledger;
}

/** The failure that is not the candidate's own, by the coordinator's verdict where there is one; null: an answer. */
function blameless(outcome: Outcome, verdict: Verdict | undefined): Failure | null {
  if (verdict && verdict.attribution !== "candidate")
    return { attribution: verdict.attribution, code: verdict.code, message: verdict.why, logTail: "" };
  return outcome.status === "failed" && outcome.failure.attribution !== "candidate" ? outcome.failure : null;
}

function failed(entry: JobEntry, failure: Failure, by: readonly string[]): JobEntry {
  const cause = failure.attribution === "device" ? "device" : "other";
  const failures = { ...entry.failures, [cause]: entry.failures[cause] + 1 };
  const max = vital(entry, cause) ? MAX_VITAL_FAILURES : MAX_FAILURES;
  const status = failures[cause] >= max ? "over" : failures[cause] === MAX_FAILURES ? "stuck" : "again";
  const avoid = cause === "device" ? [...new Set([...entry.avoid, ...by])] : entry.avoid;
  return { ...entry, status, failures, avoid, outcome: { status: "failed", failure } };
}

/**
 * A device fails every job alike, and neither the seed's job nor a leader's crowning may be decided by the harness; a baseline may be left out, and so may a
 * profile: a device that has no profiler is a good one.
 */
function vital({ spec, experiment }: JobEntry, cause: "device" | "other"): boolean {
  const purpose = purposeOf(spec);
  return (
    purpose !== "baseline" &&
    purpose !== "profile" &&
    (cause === "device" || experiment === SEED || purpose === "crown" || purpose === "repeat")
  );
}
