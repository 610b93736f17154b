import type { JetStreamClient } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import type { Device, Job, JobResult, LeaseRevoked, Tool } from "@vibeserve/shared";
import type { Logger } from "pino";
import type { Assigned } from "../bus/assignments.ts";
import type { Identity } from "../bus/identity.ts";
import { leadOf } from "../device/together.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { sendResult } from "../spool/send-results.ts";
import type { Spool } from "../spool/spool.ts";
import { abortable } from "./abortable.ts";
import { execute } from "./execute.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { ArtifactStore, JobContext, JobHandlers } from "./job-context.ts";
import { JobError } from "./job-error.ts";
import { JobLog } from "./job-log.ts";
import { aloneOn, type Machine } from "./machine.ts";

export interface AttemptDeps {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly agentId: string;
  readonly identity: Identity;
  /** The processors, with which the builder works, and whatever else it was registered with. */
  readonly devices: readonly [Device, ...Device[]];
  readonly tools: readonly Tool[];
  readonly sandbox: Sandbox;
  readonly artifacts: ArtifactStore;
  readonly spool: Spool;
  readonly handlers: JobHandlers;
  /** What jobs of this device or builder have to themselves. */
  machineOf(deviceId: string): Machine;
  readonly log: Logger;
  /** Aborted when the agent can't wait any longer: what is running is handed back, what is finished stays spooled. */
  readonly leaving: AbortSignal;
  /** A job that can't be stopped was given up: the process should end soon. */
  onStuck(): void;
}

/** A result does not wait longer for its log to be stored. */
const LOG_MS = 30_000;

/** The reason of an abort after which there is no result: the attempt goes to someone else, or is over. */
class Relinquished extends Error {}

/** A running attempt, as others may ask about it or end it. */
export interface Running {
  readonly job: Job;
  revoke(message: LeaseRevoked): void;
}

/**
 * One assignment, from its arrival to its result. Never rejects for what a job, a candidate or the network does.
 * 1. Nothing runs without a lease, and on several devices nothing before all of them are free. 2. A result is on disk before it is sent: killed at any moment, it is sent again or the coordinator gives the job out
 * anew. 3. The device is given back before the result leaves: the next job may come at once.
 */
export async function runAttempt(deps: AttemptDeps, assigned: Assigned, onRunning: (running: Running | null) => void): Promise<void> {
  const { job, devices } = assigned;
  const log = deps.log.child({ jobId: job.id, campaign: job.campaign, attempt: job.attempt, kind: job.spec.kind });
  const machines = new Set([...devices].sort().map((id) => deps.machineOf(id)));
  const spooled = await aloneOn([...machines], async () => {
    const result = await work(deps, assigned, log, onRunning);
    return result && deps.spool.add(result);
  });
  if (spooled) await sendResult(deps.js, deps.spool, spooled, deps.leaving, (why) => log.warn({ why }, "result not sent yet"));
}

/** Runs the job; null where it was given up: the coordinator knows, or will give it to another. */
async function work(
  deps: AttemptDeps,
  { job, lease, devices }: Assigned,
  log: Logger,
  onRunning: (running: Running | null) => void,
): Promise<JobResult | null> {
  const startedAt = Date.now();
  const abort = new AbortController();
  const beat = new Heartbeat(deps.nc, job, lease);
  const jobLog = new JobLog();
  const deadline = setTimeout(() => abort.abort(overdue(job)), job.deadlineMs);
  const leave = (): void => abort.abort(new Relinquished("the agent is leaving"));
  if (deps.leaving.aborted) leave();
  else deps.leaving.addEventListener("abort", leave, { once: true });
  onRunning({
    job,
    revoke: (r) => {
      if (r.jobId === job.id && r.attempt === job.attempt && r.token === lease.token) abort.abort(new Relinquished(r.reason));
    },
  });
  // The client sends at the next microtask: the report of the start leaves before the log is written, which may wait for the disk, and before the work.
  await Promise.resolve();
  const several = devices.length > 1 ? { devices: [...devices] } : {};
  log.info({ leaseToken: lease.token, deviceId: lease.deviceId, ...several }, "job started");
  try {
    // A builder is none of them: it works with the processors.
    const [first = deps.devices[0], ...others] = devices.flatMap((id) => deps.devices.find((d) => d.id === id) ?? []);
    const ctx: JobContext = {
      lease,
      device: leadOf([first, ...others]),
      devices: [first, ...others],
      agentId: deps.agentId,
      tools: deps.tools,
      signal: abort.signal,
      progress: (phase) => beat.say(phase),
      artifacts: abortable(deps.artifacts, abort.signal),
      sandbox: deps.sandbox,
      log: (line) => jobLog.write(line),
      sign: (value) => deps.identity.sign(value),
    };
    const execution = await execute(deps.handlers, job, ctx);
    if (execution.kind === "stuck") deps.onStuck();
    if (abort.signal.reason instanceof Relinquished && execution.outcome.status === "failed") {
      log.info({ why: abort.signal.reason.message }, "job given up");
      return null;
    }
    const outcome = execution.outcome;
    const failure = outcome.status === "failed" ? outcome.failure : null;
    if (failure) jobLog.write(`failed: ${failure.attribution} ${failure.code}: ${failure.message}\n${failure.logTail}`);
    log.info(
      { status: outcome.status, seconds: (Date.now() - startedAt) / 1000, failure: failure && { ...failure, logTail: undefined } },
      "job ended",
    );
    const unsigned: Omit<JobResult, "sig"> = {
      v: 1,
      kind: "result",
      jobId: job.id,
      campaign: job.campaign,
      attempt: job.attempt,
      agentId: deps.agentId,
      deviceId: lease.deviceId,
      ...several,
      leaseToken: lease.token,
      sandbox: deps.sandbox.kind,
      startedAt,
      endedAt: Date.now(),
      outcome,
      log: await jobLog.store(abortable(deps.artifacts, AbortSignal.timeout(LOG_MS)), (error) =>
        log.warn({ error }, "the job's log was not stored"),
      ),
    };
    return { ...unsigned, sig: deps.identity.sign(unsigned) };
  } finally {
    onRunning(null);
    clearTimeout(deadline);
    deps.leaving.removeEventListener("abort", leave);
    beat.stop();
  }
}

/** Sends what an earlier life left in the spool. */
export async function sendPending(deps: AttemptDeps, log: Logger): Promise<void> {
  for (const spooled of await deps.spool.pending()) {
    log.info({ jobId: spooled.result.jobId, attempt: spooled.result.attempt }, "sending a spooled result");
    if (!(await sendResult(deps.js, deps.spool, spooled, deps.leaving, (why) => log.warn({ why }, "result not sent yet")))) return;
  }
}

/** A build that never ends is the candidate's; the other jobs bound each candidate's part themselves, so that only the harness can be late. */
function overdue(job: Job): JobError {
  return new JobError(job.spec.kind === "build" ? "candidate" : "harness", "deadline", `the job took longer than its ${job.deadlineMs} ms`);
}
