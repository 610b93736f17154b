import type { JetStreamClient, JsMsg } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import {
  builderDevice,
  CodecError,
  decode,
  Job,
  type Device,
  type JobResult,
  type Lease,
  type LeaseRevoked,
  type Tool,
} from "@vibeserve/shared";
import type { Logger } from "pino";
import type { Identity } from "../bus/identity.ts";
import { askLease } from "../lease/ask-lease.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { sendResult } from "../spool/send-results.ts";
import type { Spool } from "../spool/spool.ts";
import { execute } from "./execute.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { ArtifactStore, JobContext, JobHandlers } from "./job-context.ts";
import { JobError } from "./job-error.ts";
import { JobLog } from "./job-log.ts";

export interface AttemptDeps {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly agentId: string;
  readonly identity: Identity;
  readonly device: Device;
  readonly tools: readonly Tool[];
  readonly sandbox: Sandbox;
  readonly artifacts: ArtifactStore;
  readonly spool: Spool;
  readonly handlers: JobHandlers;
  readonly log: Logger;
  /** Aborted when the agent can't wait any longer: what is running is handed back, what is finished stays spooled. */
  readonly leaving: AbortSignal;
  /** A job that can't be stopped was given up: the process should end soon. */
  onStuck(): void;
}

/** Pauses before a job is offered again: nobody answered for its lease (doubles with each delivery), the lease was refused for now. */
const UNREACHABLE_MS = 250;
const LONGEST_MS = 10_000;
const REFUSED_MS = 1_000;

/** The reason of an abort after which there is no result: the attempt goes to someone else, or is over. */
class Relinquished extends Error {
  readonly to: "another" | "nobody";
  constructor(to: "another" | "nobody", message: string) {
    super(message);
    this.to = to;
  }
}

/** A running attempt, as others may ask about it or end it. */
export interface Running {
  readonly job: Job;
  readonly lease: Lease;
  phase(): string;
  revoke(message: LeaseRevoked): void;
}

/**
 * One delivery of one job, from the stream to its acknowledgement. Never rejects for what a job, a candidate or the network does.
 * 1. Nothing runs without a lease. 2. A result is on disk before it is sent, and sent before the job is acknowledged: killed at any moment, the job is
 * delivered again or its result is sent again. 3. An attempt that was answered here is not run again.
 */
export async function runAttempt(
  deps: AttemptDeps,
  message: JsMsg,
  ackWaitMs: number,
  onRunning: (running: Running | null) => void,
): Promise<void> {
  const job = readJob(deps, message);
  if (job === null) return;
  const log = deps.log.child({ jobId: job.id, campaign: job.campaign, attempt: job.attempt, kind: job.spec.kind });
  if (deps.spool.isAnswered(job.id, job.attempt)) {
    await sendPending(deps, log);
    if (!deps.leaving.aborted) message.ack();
    return;
  }
  const deviceId = job.spec.kind === "build" ? builderDevice(deps.agentId) : deps.device.id;
  const answer = await askLease(deps.nc, deps.agentId, deviceId, job);
  if (answer.kind !== "lease.granted") {
    log.info({ answer }, "job not started");
    if (answer.kind === "unreachable") message.nak(Math.min(UNREACHABLE_MS * 2 ** Math.min(message.info.deliveryCount, 10), LONGEST_MS));
    else if (answer.drop) message.ack();
    else message.nak(REFUSED_MS);
    return;
  }
  const result = await work(deps, message, ackWaitMs, job, answer.lease, log, onRunning);
  if (result === null) return;
  const spooled = await deps.spool.add(result);
  if (await sendResult(deps.js, deps.spool, spooled, deps.leaving, (why) => log.warn({ why }, "result not sent yet"))) message.ack();
}

/** Runs the job; null where there is no result, and the message is dealt with. */
async function work(
  deps: AttemptDeps,
  message: JsMsg,
  ackWaitMs: number,
  job: Job,
  lease: Lease,
  log: Logger,
  onRunning: (running: Running | null) => void,
): Promise<JobResult | null> {
  const startedAt = Date.now();
  const abort = new AbortController();
  const beat = new Heartbeat(deps.nc, message, job, lease, ackWaitMs);
  const jobLog = new JobLog();
  const deadline = setTimeout(() => abort.abort(overdue(job)), job.deadlineMs);
  const leave = (): void => abort.abort(new Relinquished("another", "the agent is leaving"));
  if (deps.leaving.aborted) leave();
  else deps.leaving.addEventListener("abort", leave, { once: true });
  onRunning({
    job,
    lease,
    phase: () => beat.phase,
    revoke: (r) => {
      if (r.jobId === job.id && r.attempt === job.attempt && r.token === lease.token) abort.abort(new Relinquished("nobody", r.reason));
    },
  });
  // The client sends at the next microtask: the report of the start leaves before the log is written, which may wait for the disk, and before the work.
  await Promise.resolve();
  log.info({ leaseToken: lease.token, deviceId: lease.deviceId }, "job started");
  try {
    const ctx: JobContext = {
      lease,
      device: deps.device,
      agentId: deps.agentId,
      tools: deps.tools,
      signal: abort.signal,
      progress: (phase) => beat.say(phase),
      artifacts: deps.artifacts,
      sandbox: deps.sandbox,
      log: (line) => jobLog.write(line),
      sign: (value) => deps.identity.sign(value),
    };
    const execution = await execute(deps.handlers, job, ctx);
    if (execution.kind === "stuck") deps.onStuck();
    if (abort.signal.reason instanceof Relinquished && execution.outcome.status === "failed") {
      log.info({ why: abort.signal.reason.message, to: abort.signal.reason.to }, "job given up");
      if (abort.signal.reason.to === "another") message.nak();
      else message.ack();
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
      leaseToken: lease.token,
      sandbox: deps.sandbox.kind,
      startedAt,
      endedAt: Date.now(),
      outcome,
      log: await jobLog.store(deps.artifacts, (error) => log.warn({ error }, "the job's log was not stored")),
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

/** A message that is no job can never be done: taken off the stream, and said. */
function readJob(deps: AttemptDeps, message: JsMsg): Job | null {
  try {
    return decode(Job, message.data, message.subject);
  } catch (error) {
    if (!(error instanceof CodecError)) throw error;
    deps.log.error({ subject: message.subject, why: error.message }, "malformed job dropped");
    message.term(error.message.slice(0, 200));
    return null;
  }
}

/** A build that never ends is the candidate's; the other jobs bound each candidate's part themselves, so that only the harness can be late. */
function overdue(job: Job): JobError {
  return new JobError(job.spec.kind === "build" ? "candidate" : "harness", "deadline", `the job took longer than its ${job.deadlineMs} ms`);
}
