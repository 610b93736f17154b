import { onProcessors, type JobSpec } from "@vibeserve/shared";
import { takeMachine } from "../machine/machine-lock.ts";
import type { JobContext, JobOf } from "./job-context.ts";
import { JobError } from "./job-error.ts";

/** Work that has the machine's processors, or one accelerator, to itself, among all agents and coding CLIs of this machine. */
export class Alone {
  readonly #lock: string;
  readonly #agentId: string;

  constructor(lock: string, agentId: string) {
    this.#lock = lock;
    this.#agentId = agentId;
  }

  /**
   * Runs a job's work. What it waits is told as progress and in its log. At most half of the job's time is waited, since the other half is several times
   * what the work needs; then JobError device `machine-busy`, so that the wait is never laid to a candidate. The signal's reason where that aborts.
   */
  async job<T>(job: JobOf<JobSpec>, ctx: JobContext, work: () => Promise<T>): Promise<T> {
    const from = performance.now();
    const limit = AbortSignal.timeout(job.deadlineMs / 2);
    let holder = "";
    const { device } = ctx;
    const lock = job.spec.kind === "build" || onProcessors(device) ? this.#lock : `${this.#lock}-${device.id}`;
    const hold = await takeMachine(lock, {
      who: `${job.spec.kind} of campaign ${job.campaign} (agent ${this.#agentId})`,
      signal: AbortSignal.any([ctx.signal, limit]),
      waits: (by) => ctx.progress(`waits for the machine: held by ${(holder = by)}`),
    }).catch((error: unknown) => {
      if (ctx.signal.aborted || !limit.aborted) throw error;
      throw new JobError("device", "machine-busy", `the machine was not free for ${job.deadlineMs / 2000} s: held by ${holder}`);
    });
    try {
      if (holder !== "") {
        ctx.log(`waited ${((performance.now() - from) / 1000).toFixed(1)} s for the machine`);
        ctx.progress("has the machine");
      }
      return await work();
    } finally {
      hold.release();
    }
  }

  /** Runs what may be left at any time, when no one else wants the machine; `work` gets a signal that aborts as soon as someone does. */
  async idle(work: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    const wanted = new AbortController();
    const both = AbortSignal.any([signal, wanted.signal]);
    try {
      const who = `hidden pool of agent ${this.#agentId}`;
      const hold = await takeMachine(this.#lock, { who, signal: both, background: true, wanted: () => wanted.abort() });
      try {
        await work(both);
      } finally {
        hold.release();
      }
    } catch (error) {
      if (!both.aborted) throw error;
    }
  }

  /** Runs something short that is no job; null, and not run, where the machine is not free within `limitMs`. */
  async briefly<T>(what: string, limitMs: number, work: () => Promise<T>): Promise<T | null> {
    const signal = AbortSignal.timeout(limitMs);
    const hold = await takeMachine(this.#lock, { who: `${what} of agent ${this.#agentId}`, signal }).catch((error: unknown) => {
      if (signal.aborted) return null;
      throw error;
    });
    try {
      return hold && (await work());
    } finally {
      hold?.release();
    }
  }
}
