import { join } from "node:path";
import { onProcessors, physicalId, sha256, type Device, type JobSpec } from "@vibeserve/shared";
import { machineDigest } from "../machine/machine-id.ts";
import { takeMachine, type Hold } from "../machine/machine-lock.ts";
import { takeShared } from "../machine/shared-lock.ts";
import { findTool } from "../sandbox/probe-sandbox.ts";
import type { JobContext, JobOf } from "./job-context.ts";
import { JobError } from "./job-error.ts";

/**
 * Work that has the machine's processors, or one accelerator, to itself, among all agents and coding CLIs of this machine. An accelerator's lock is named after what
 * its vendor calls it, so that agents that know it by other ids, or take themselves to be on other machines (containers), wait for each other.
 */
export class Alone {
  readonly #lock: string;
  readonly #deviceLock: string;
  readonly #agentId: string;
  readonly #folder: string | null;

  /** deviceLock: what the names of accelerators' locks begin with. folder: what the containers of this node share; null: nothing. */
  constructor(lock: string, deviceLock: string, agentId: string, folder: string | null = null) {
    [this.#lock, this.#deviceLock, this.#agentId, this.#folder] = [lock, deviceLock, agentId, folder];
  }

  /**
   * Runs a job's work; on several accelerators with the locks of all of them, always taken in the same order. What it waits is told as progress and in its log. At most half of the job's time is waited, since the other half is several times
   * what the work needs; then JobError device `machine-busy`, so that the wait is never laid to a candidate. The signal's reason where that aborts.
   */
  async job<T>(job: JobOf<JobSpec>, ctx: JobContext, work: () => Promise<T>): Promise<T> {
    const from = performance.now();
    const limit = AbortSignal.timeout(job.deadlineMs / 2);
    let holder = "";
    const { device, devices } = ctx;
    const wanted = job.spec.kind === "build" || onProcessors(device) ? [null] : [...new Set(devices.map(accelerators))].sort();
    const signal = AbortSignal.any([ctx.signal, limit]);
    const waits = (by: string): void => ctx.progress(`waits for the machine: held by ${(holder = by)}`);
    const late = (error: unknown): never => {
      if (ctx.signal.aborted || !limit.aborted) throw error;
      throw new JobError("device", "machine-busy", `the machine was not free for ${job.deadlineMs / 2000} s: held by ${holder}`);
    };
    const who = `${job.spec.kind} of campaign ${job.campaign} (agent ${this.#agentId})`;
    const held: Hold[] = [];
    try {
      for (const accelerator of wanted) {
        const name = accelerator === null ? this.#lock : `${this.#deviceLock}-${accelerator}`;
        held.push(await takeMachine(name, { who, signal, waits }).catch(late));
        const shared = await this.#takeShared(accelerator ?? "processors", signal, waits).catch(late);
        if (shared) held.push(shared);
      }
      if (holder !== "") {
        ctx.log(`waited ${((performance.now() - from) / 1000).toFixed(1)} s for the machine`);
        ctx.progress("has the machine");
      }
      return await work();
    } finally {
      for (const hold of held.reverse()) hold.release();
    }
  }

  async #takeShared(name: string, signal: AbortSignal, waits: (by: string) => void): Promise<Hold | null> {
    if (this.#folder === null) return null;
    const flock = findTool("flock");
    if (flock === null) throw new JobError("device", "no-flock", `agents that share ${this.#folder} need flock (util-linux)`);
    return takeShared(flock, join(this.#folder, `${name}.lock`), signal, () => waits("an agent in another container"));
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

/** The name of an accelerator's lock, the same for all who see this very device. */
const accelerators = (device: Device): string => sha256(physicalId(device, machineDigest()) ?? device.id).slice(0, 32);
