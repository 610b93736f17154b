import { jetstream } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { builderDevice, CodecError, decode, LeaseRevoked, onProcessors, subjects, type AgentInfo } from "@vibeserve/shared";
import { setTimeout as sleep } from "node:timers/promises";
import { Assignments, type Assigned } from "../bus/assignments.ts";
import { Registration } from "../bus/registration.ts";
import { runAttempt, sendPending, type AttemptDeps, type Running } from "./attempt.ts";
import { Machine } from "./machine.ts";

export interface WorkerDeps extends Omit<AttemptDeps, "js" | "leaving" | "onStuck" | "machineOf"> {
  readonly nc: NatsConnection;
  readonly info: AgentInfo;
}

/** After the bound of a drain: time to stop a job's processes, spool, and say goodbye. */
const LAST_MS = 8_000;

/** A timer waits no longer, some 24 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** What an earlier life finished counts if it comes before this life is known; a broker that does not answer is not waited for longer. */
const SEND_FIRST_MS = 5_000;

/**
 * A gpu-agent's life on the bus: spooled results of an earlier life sent → registered → taking what it is assigned → draining → closed.
 */
export class Worker {
  readonly #deps: WorkerDeps;
  /** One for the processors, which CPU devices and the builder share; one for each accelerator. */
  readonly #machines = new Map<string, Machine>();
  readonly #registration: Registration;
  readonly #assignments: Assignments;
  readonly #taking = new AbortController();
  readonly #leaving = new AbortController();
  readonly #stuck = Promise.withResolvers<null>();
  readonly #running = new Map<number, Running>();
  readonly #attempts = new Set<Promise<void>>();
  readonly #idlers: { readonly ms: number; readonly work: () => void; timer?: NodeJS.Timeout }[] = [];
  #opened: Promise<void> = Promise.resolve();
  #drained: Promise<void> | null = null;

  constructor(deps: WorkerDeps) {
    this.#deps = deps;
    this.#registration = new Registration(deps.nc, deps.info, {
      failed: (error) => deps.log.warn({ why: String(error) }, "registration not written; it is tried again"),
    });
    this.#assignments = new Assignments({
      nc: deps.nc,
      agentId: deps.agentId,
      startedAt: deps.info.startedAt,
      devices: [...deps.info.devices.map((d) => d.id), builderDevice(deps.agentId)],
      take: (assigned) => this.#take(assigned),
      refused: (why) => deps.log.error({ why }, "an assignment was not understood"),
    });
  }

  /** Settles if a job could not be stopped: the process should drain and end. */
  get stuck(): Promise<null> {
    return this.#stuck.promise;
  }

  /** Calls `work` when there was no job for so long, from now on, and again whenever there was none for so long after a job. */
  whenIdle(ms: number, work: () => void): void {
    this.#idlers.push({ ms: Math.min(ms, MAX_TIMER_MS), work });
    this.#rest();
  }

  /** Why it is given no jobs; null: it may be. */
  get unregistered(): string | null {
    return this.#registration.trouble;
  }

  /** Registers and takes jobs from then on. Resolves when it is registered. */
  start(): Promise<void> {
    void this.#watchConnection();
    this.#heedOrders();
    this.#opened = this.#open();
    return this.#opened;
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

  /** The device fell off the bus: the coordinator is told to give it nothing more. */
  deviceGone(deviceId: string): void {
    this.#deps.log.error({ deviceId }, "A DEVICE IS GONE: it is offered no more until this agent starts anew");
    void this.#registration.withoutDevice(deviceId);
  }

  get #attemptDeps(): AttemptDeps {
    return {
      ...this.#deps,
      js: jetstream(this.#deps.nc),
      leaving: this.#leaving.signal,
      onStuck: () => this.#stuck.resolve(null),
      machineOf: (deviceId) => this.#machineOf(deviceId),
    };
  }

  async #open(): Promise<void> {
    await Promise.race([sendPending(this.#attemptDeps, this.#deps.log), sleep(SEND_FIRST_MS, undefined, { ref: false })]);
    this.#assignments.open();
    await this.#registration.open();
  }

  /** Accelerators stand for themselves; all else runs on the processors. */
  #machineOf(deviceId: string): Machine {
    const device = this.#deps.info.devices.find((d) => d.id === deviceId);
    const name = device && !onProcessors(device) ? device.id : "processors";
    const machine = this.#machines.get(name) ?? new Machine();
    this.#machines.set(name, machine);
    return machine;
  }

  #take(assigned: Assigned): void {
    // The coordinator learns from this agent's entry that it leaves, and gives the job to another.
    if (this.#taking.signal.aborted) return;
    const { token } = assigned.lease;
    const attempt = runAttempt(this.#attemptDeps, assigned, (running) =>
      running ? this.#running.set(token, running) : this.#running.delete(token),
    )
      // Not the job's doing (a full disk under the spool, a bug): the lease runs out, and someone else may do better.
      .catch((error: unknown) => this.#deps.log.error({ jobId: assigned.job.id, why: String(error) }, "an attempt was given up"))
      .finally(() => {
        this.#attempts.delete(attempt);
        this.#rest();
      });
    this.#attempts.add(attempt);
    this.#rest();
  }

  #rest(): void {
    for (const idler of this.#idlers) {
      clearTimeout(idler.timer);
      if (this.#attempts.size === 0) idler.timer = setTimeout(idler.work, idler.ms).unref();
    }
  }

  async #drain(): Promise<void> {
    this.#taking.abort();
    this.#deps.log.info({ jobs: [...this.#running.values()].map((r) => r.job.id) }, "draining");
    await Promise.race([this.#registration.drain(), sleep(2_000, undefined, { ref: false })]);
    const late = Promise.withResolvers<null>();
    this.#leaving.signal.addEventListener("abort", () => void sleep(LAST_MS, null, { ref: false }).then(late.resolve), { once: true });
    await Promise.race([this.#opened.then(() => Promise.all(this.#attempts)), late.promise]);
    this.#assignments.close();
    await this.#registration.close();
    await Promise.race([this.#deps.nc.drain(), sleep(2_000, undefined, { ref: false })]);
    await this.#deps.nc.close();
  }

  async #watchConnection(): Promise<void> {
    for await (const status of this.#deps.nc.status()) {
      if (status.type === "disconnect") this.#deps.log.warn("connection lost; redialling");
      if (status.type !== "reconnect") continue;
      this.#deps.log.info("connected again");
      // What was assigned while it was away was told to nobody.
      void this.#registration
        .write()
        .then(() => this.#assignments.look())
        .catch((error: unknown) => {
          this.#deps.log.warn({ why: String(error) }, "assignments not read");
        });
    }
  }

  /** `vs.agent.<id>.drain` and `.revoke`; what came of them is seen in the registry. */
  #heedOrders(): void {
    const { nc, agentId, log } = this.#deps;
    nc.subscribe(subjects.agent(agentId, "*"), {
      callback: (error, message) => {
        if (error) {
          log.warn({ why: error.message }, "orders can't be heard");
          return;
        }
        const order = message.subject.split(".").at(-1);
        if (order === "drain") void this.drain(DRAIN_MS);
        if (order === "revoke") this.#revoke(message.data, message.subject);
      },
    });
  }

  #revoke(data: Uint8Array, subject: string): void {
    try {
      const message = decode(LeaseRevoked, data, subject);
      this.#running.get(message.token)?.revoke(message);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      this.#deps.log.warn({ why: error.message }, "malformed revocation ignored");
    }
  }
}

/** A job may go on this long when the agent is asked to leave: most builds and screenings end within it. */
export const DRAIN_MS = 10_000;
