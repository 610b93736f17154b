import { jetstream } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { AgentInfo, CodecError, decode, durables, encode, LeaseRevoked, subjects } from "@vibeserve/shared";
import { setTimeout as sleep } from "node:timers/promises";
import { Registration } from "../bus/registration.ts";
import { runAttempt, sendPending, type AttemptDeps, type Running } from "./attempt.ts";
import { runJobLoop } from "./job-loop.ts";
import { Machine } from "./machine.ts";

export interface WorkerDeps extends Omit<AttemptDeps, "js" | "leaving" | "onStuck"> {
  readonly nc: NatsConnection;
  readonly info: AgentInfo;
}

/** After the bound of a drain: time to stop a job's processes, spool, and say goodbye. */
const LAST_MS = 8_000;

/**
 * A gpu-agent's life on the bus: registered → taking jobs → draining → closed. Two loops, builds and device jobs, which exclude each other (Machine).
 * Spooled results of an earlier life are sent before the first job is taken.
 */
export class Worker {
  readonly #deps: WorkerDeps;
  readonly #machine = new Machine();
  readonly #registration: Registration;
  readonly #taking = new AbortController();
  readonly #leaving = new AbortController();
  readonly #reconnected = new Set<() => void>();
  readonly #stuck = Promise.withResolvers<null>();
  #running: Running | null = null;
  #loops: Promise<unknown> = Promise.resolve();
  #drained: Promise<void> | null = null;

  constructor(deps: WorkerDeps) {
    this.#deps = deps;
    this.#registration = new Registration(deps.nc, deps.info, {
      failed: (error) => deps.log.warn({ why: String(error) }, "registration not written; it is tried again"),
    });
  }

  /** Settles if a job could not be stopped: the process should drain and end. */
  get stuck(): Promise<null> {
    return this.#stuck.promise;
  }

  /** Registers and starts taking jobs. Returns at once; the loops go on until drain(). */
  start(): void {
    void this.#watchConnection();
    this.#answerQuestions();
    const deps: AttemptDeps = {
      ...this.#deps,
      js: jetstream(this.#deps.nc),
      leaving: this.#leaving.signal,
      onStuck: () => this.#stuck.resolve(null),
    };
    this.#loops = this.#run(deps);
  }

  /**
   * Takes no more jobs; lets a running one go on for `boundMs`, then stops it and hands it back to the stream; takes the registration away and closes the
   * connection. Idempotent; a second call with a shorter bound shortens the first.
   */
  drain(boundMs: number): Promise<void> {
    setTimeout(() => this.#leaving.abort(), boundMs).unref();
    this.#drained ??= this.#drain();
    return this.#drained;
  }

  async #run(deps: AttemptDeps): Promise<void> {
    await this.#registration.open();
    await sendPending(deps, deps.log);
    await Promise.all(
      this.#deps.info.pools
        .flatMap((pool) => [durables.build(pool), durables.device(pool)])
        .map((durable) =>
          runJobLoop(
            {
              js: deps.js,
              durable,
              machine: this.#machine,
              log: deps.log,
              onReconnect: (tell) => {
                this.#reconnected.add(tell);
                return () => this.#reconnected.delete(tell);
              },
              attempt: (message, ackWaitMs) => runAttempt(deps, message, ackWaitMs, (running) => (this.#running = running)),
            },
            this.#taking.signal,
          ),
        ),
    );
  }

  async #drain(): Promise<void> {
    this.#taking.abort();
    this.#deps.log.info({ job: this.#running?.job.id ?? null }, "draining");
    await Promise.race([this.#registration.drain(), sleep(2_000, undefined, { ref: false })]);
    const late = Promise.withResolvers<null>();
    this.#leaving.signal.addEventListener("abort", () => void sleep(LAST_MS, null, { ref: false }).then(late.resolve), { once: true });
    await Promise.race([this.#loops, late.promise]);
    await this.#registration.close();
    await Promise.race([this.#deps.nc.drain(), sleep(2_000, undefined, { ref: false })]);
    await this.#deps.nc.close();
  }

  async #watchConnection(): Promise<void> {
    for await (const status of this.#deps.nc.status()) {
      if (status.type === "disconnect") this.#deps.log.warn("connection lost; redialling");
      if (status.type !== "reconnect") continue;
      this.#deps.log.info("connected again");
      for (const tell of [...this.#reconnected]) tell();
      void this.#registration.write();
    }
  }

  /** `vs.agent.<id>.status` and `.drain` are answered with this agent's AgentInfo; `.revoke` has no answer. Others are not answered. */
  #answerQuestions(): void {
    const { nc, agentId, log } = this.#deps;
    nc.subscribe(subjects.agent(agentId, "*"), {
      callback: (error, message) => {
        if (error) {
          log.warn({ why: error.message }, "questions can't be heard");
          return;
        }
        switch (message.subject.split(".").at(-1)) {
          case "drain":
            void this.drain(DRAIN_MS);
            break;
          case "status":
            break;
          case "revoke":
            this.#revoke(message.data, message.subject);
            return;
          default:
            return;
        }
        message.respond(encode(AgentInfo, this.#registration.info, message.subject));
      },
    });
  }

  #revoke(data: Uint8Array, subject: string): void {
    try {
      this.#running?.revoke(decode(LeaseRevoked, data, subject));
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      this.#deps.log.warn({ why: error.message }, "malformed revocation ignored");
    }
  }
}

/** A job may go on this long when the agent is asked to leave: most builds and screenings end within it. */
export const DRAIN_MS = 10_000;
