import type { NatsConnection } from "@nats-io/transport-node";
import { encode, Progress, subjects, type Job, type Lease } from "@vibeserve/shared";

/** Progress goes out at most this often: a message during a measurement is a disturbance, if a small one. */
const PERIOD_MS = 2_000;

/** While a job runs: tells the coordinator what is going on, which keeps the lease alive. Ends with stop(). */
export class Heartbeat {
  readonly #nc: NatsConnection;
  readonly #progress: Omit<Progress, "phase" | "at">;
  readonly #timer: NodeJS.Timeout;
  #phase = "starting";
  #sentMs = 0;

  constructor(nc: NatsConnection, job: Job, lease: Lease) {
    this.#nc = nc;
    this.#progress = {
      v: 1,
      kind: "progress",
      jobId: job.id,
      campaign: job.campaign,
      attempt: job.attempt,
      agentId: lease.agentId,
      leaseToken: lease.token,
    };
    this.#timer = setInterval(() => this.#send(), Math.min(PERIOD_MS, lease.ttlMs / 4));
    this.#send();
  }

  /** A new phase goes out at once if nothing was sent for a while, else with the next beat. */
  say(phase: string): void {
    this.#phase = phase.slice(0, 200);
    if (performance.now() - this.#sentMs >= PERIOD_MS) this.#send();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #send(): void {
    this.#sentMs = performance.now();
    if (this.#nc.isClosed()) return;
    const subject = subjects.progress(this.#progress.agentId, this.#progress.jobId);
    this.#nc.publish(subject, encode(Progress, { ...this.#progress, phase: this.#phase, at: Date.now() }, subject));
  }
}
