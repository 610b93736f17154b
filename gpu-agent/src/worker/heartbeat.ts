import type { JsMsg } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { encode, Progress, subjects, type Job, type Lease } from "@vibeserve/shared";

/** Progress goes out at most this often: a message during a measurement is a disturbance, if a small one. */
const PERIOD_MS = 2_000;

/**
 * While a job runs: tells JetStream that it is being worked on, so that it is not delivered again, and the coordinator what is going on, which keeps the
 * lease alive. Ends with stop().
 */
export class Heartbeat {
  readonly #nc: NatsConnection;
  readonly #message: JsMsg;
  readonly #progress: Omit<Progress, "phase" | "at">;
  readonly #timer: NodeJS.Timeout;
  #phase = "starting";
  #sentMs = 0;

  /** ackWaitMs: within this JetStream wants to hear of the job. */
  constructor(nc: NatsConnection, message: JsMsg, job: Job, lease: Lease, ackWaitMs: number) {
    this.#nc = nc;
    this.#message = message;
    this.#progress = {
      v: 1,
      kind: "progress",
      jobId: job.id,
      campaign: job.campaign,
      attempt: job.attempt,
      agentId: lease.agentId,
      leaseToken: lease.token,
    };
    this.#timer = setInterval(() => this.#beat(), Math.min(PERIOD_MS, ackWaitMs / 4, lease.ttlMs / 4));
    this.#send();
  }

  /** A new phase goes out at once if nothing was sent for a while, else with the next beat. */
  say(phase: string): void {
    this.#phase = phase.slice(0, 200);
    if (performance.now() - this.#sentMs >= PERIOD_MS) this.#send();
  }

  get phase(): string {
    return this.#phase;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #beat(): void {
    this.#message.working();
    this.#send();
  }

  #send(): void {
    this.#sentMs = performance.now();
    if (this.#nc.isClosed()) return;
    const subject = subjects.progress(this.#progress.agentId, this.#progress.jobId);
    this.#nc.publish(subject, encode(Progress, { ...this.#progress, phase: this.#phase, at: Date.now() }, subject));
  }
}
