import type { JobKind } from "@vibeserve/shared";

/** What the scheduler knows; no clock, no I/O: every time is an argument, in ms of whatever clock the caller keeps. */

/** A device or a builder, as the scheduler sees it. */
export interface SchedulableDevice {
  id: string;
  agentId: string;
  pool: string;
  /** A builder takes builds and exec; a device everything else. */
  slot: Slot;
  /** At most one job runs in a domain: what would disturb one another's measurement (CPU pools and the builder of one machine). */
  domain: string;
  /** Only a ready device gets work; draining and maintenance ones end what they hold. */
  state: "ready" | "draining" | "maintenance";
  /** suspect gets canaries only; quarantined nothing. */
  health: "good" | "suspect" | "quarantined";
  simulated: boolean;
}
export type Slot = "device" | "builder";

export interface SchedulableJob {
  id: string;
  attempt: number;
  campaign: string;
  kind: JobKind;
  /** Any of these pools; the first is preferred where both are free. */
  pools: readonly string[];
  slot: Slot;
  /** Gang: this many devices of one agent, all or none. 1 for most. */
  devices: number;
  simulated: boolean;
  /** Devices that must not take it, because a second device's verdict is wanted. */
  avoid: readonly string[];
  /** Devices that alone may take it, as a canary for one of them; default: any of its pools. */
  only?: readonly string[];
  /** Estimate of how long it runs, ms; the median of its kind in the pool so far. For ETA and back-fill only. */
  expectedMs: number;
  /** Part of a chain on which its campaign waits, or work beside it. */
  canary: boolean;
}

export interface SchedulableCampaign {
  id: string;
  /** Share among campaigns of the same priority that want the same pool; 1 by default. */
  weight: number;
  /** Higher goes first, always. 0 by default. */
  priority: number;
  /** Wall-clock end, ms; null: none. Among equals the one whose deadline would be missed goes first. */
  deadlineAt: number | null;
  /** What it still expects to need beyond the jobs that it has asked for, one after the other, ms; default 0. Only its deadline's rescue looks at it. */
  remainingMs?: number;
  /** At most so many devices and builders at once, as its money allows; default: no limit. 0 stops it without withdrawing anything. */
  maxDevices?: number;
}

export interface Assignment {
  job: SchedulableJob;
  /** One, or the gang; all of one agent. */
  devices: readonly SchedulableDevice[];
}

/** What a pool is wanted for, by slot. */
export interface Demand {
  waiting: Readonly<Record<Slot, number>>;
  free: number;
}

/** Why a job is not running, for `vibeserve explain job ID`. */
export interface Explanation {
  jobId: string;
  state: "waiting" | "running" | "unknown";
  /** 1 = next in its pool; null when running. */
  position: number | null;
  /** Until it starts, or, when it runs, until it ends, by the jobs' expected times, ms; null where no device that is there now could take it. */
  etaMs: number | null;
  reason: string;
  /** Every device of its pools and what it does or why it is idle. */
  devices: readonly { id: string; doing: string }[];
}
