import { statfsSync } from "node:fs";
import { JetStreamApiError } from "@nats-io/jetstream";

/**
 * Notices that JetStream can't store, says why, and mends what can be mended.
 *   G1. A full disk is waited for, not failed on: nothing that was acknowledged is lost, and what was not is tried again.
 *   G2. nats-server keeps refusing a stream after one failed write, without an answer and even when there is room again (2.15.1: "critical write error"), so
 *       it is restarted once there is. One that answers why it stores nothing (its limit, no quorum) is not: that cures neither, and cuts off every agent.
 */
export interface StoreGuardOptions {
  /** Folder whose file system JetStream writes to. */
  dir: string;
  /** Ends the server; its supervisor starts it again on the same port. */
  restart: () => Promise<void>;
  log: (event: string, facts: Record<string, unknown>) => void;
  /** Hears how long each store of an event took. */
  stored?: (tookMs: number) => void;
  /** Below this the disk counts as full. Default 32 MiB: JetStream writes blocks of up to 8 MiB, git and the agent need some too. */
  minFreeBytes?: number;
}

const MIN_FREE_BYTES = 32 * 1024 * 1024;
/**
 * So many stores in a row without success, over so long: it is said, and on a disk with room a silent server is stuck. One writer's tries take ~12 s; many writers'
 * fail together, and a disk that is slow for a few seconds is no reason to cut off every agent.
 */
const STUCK_AFTER = 5;
const STUCK_MS = 10_000;
/** Who is not answered asks again within half a minute, or has given up: then nobody knows of a trouble any more. */
const FORGOTTEN_MS = 60_000;

export class StoreGuard {
  readonly #options: StoreGuardOptions;
  /** Stores without an answer since the last success or restart, and when the first of them failed. */
  #silent = { stores: 0, since: 0 };
  #full: string | null = null;
  /** Since the last success. */
  #failing: { since: number; last: number; stores: number; why: string } | null = null;
  /** Why the server could not be restarted. */
  #unmended = "";
  #mending: Promise<void> | null = null;

  constructor(options: StoreGuardOptions) {
    this.#options = options;
  }

  /** What is wrong, for people; null: nothing. */
  get trouble(): string | null {
    const stalled = this.#stalled;
    if (stalled === null) return null;
    if (this.#full !== null) return this.#full;
    const { stores, why } = stalled;
    if (!isStuck(stalled)) return null;
    return `the broker does not store: ${why} (${stores} times in a row${this.#unmended === "" ? "" : `; ${this.#unmended}`})`;
  }

  /** The same, and whether the disk is full though nobody has met it yet. */
  look(): string | null {
    const free = freeBytes(this.#options.dir);
    return this.trouble ?? (free < this.#minFreeBytes ? full(this.#options.dir, free) : null);
  }

  /** How long nothing has been stored that was asked to be, ms; 0: the last store was answered. */
  get stalledMs(): number {
    return this.#stalled === null ? 0 : performance.now() - this.#stalled.since;
  }

  get #stalled() {
    return this.#failing === null || performance.now() - this.#failing.last > FORGOTTEN_MS ? null : this.#failing;
  }

  /** A store was answered. tookMs: of an event; absent for anything else. */
  stored(tookMs?: number): void {
    this.#silent = { stores: 0, since: 0 };
    this.#failing = null;
    this.#unmended = "";
    if (tookMs !== undefined) this.#options.stored?.(tookMs);
  }

  /** A store failed of this: no answer, or one that says that nothing can be stored now. Resolves when it makes sense to try again. Never rejects. */
  async stalled(error: unknown): Promise<void> {
    const { dir, log } = this.#options;
    const last = performance.now();
    const { since, stores } = this.#stalled ?? { since: last, stores: 0 };
    this.#failing = { since, last, stores: stores + 1, why: reason(error) };
    const answered = error instanceof JetStreamApiError;
    if (!answered) this.#silent = { stores: this.#silent.stores + 1, since: this.#silent.stores === 0 ? last : this.#silent.since };
    const free = freeBytes(dir);
    if (free < this.#minFreeBytes) {
      if (this.#full === null) {
        this.#full = full(dir, free);
        log("store.full", { dir, freeBytes: free, trouble: this.#full });
      }
      return;
    }
    if (this.#full === null && (answered || !isStuck(this.#silent))) return;
    this.#mending ??= this.#mend(free).finally(() => (this.#mending = null));
    await this.#mending;
  }

  get #minFreeBytes(): number {
    return this.#options.minFreeBytes ?? MIN_FREE_BYTES;
  }

  async #mend(free: number): Promise<void> {
    const { dir, restart, log } = this.#options;
    if (this.#unmended === "") log("store.restarting", { dir, freeBytes: free, silent: this.#silent.stores });
    try {
      await restart();
      this.#full = null;
      this.#silent = { stores: 0, since: 0 };
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (why !== this.#unmended) log("store.failed", { why, stalled: this.#stalled?.why });
      this.#unmended = why;
    }
  }
}

const isStuck = ({ stores, since }: { stores: number; since: number }): boolean =>
  stores >= STUCK_AFTER && performance.now() - since >= STUCK_MS;

/** "Not enabled" is what the client makes of a stream for which nobody answers: in a cluster it has no leader. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.name === "JetStreamNotEnabled" ? "no server answers for the stream" : error.message;
}

const full = (dir: string, free: number): string =>
  `the disk of ${dir} is full (${Math.floor(free / 1024 / 1024)} MiB free): everything waits, and goes on by itself when there is room`;

/** Throws where there is too little room to begin. */
export function requireRoom(dir: string, minFreeBytes: number = MIN_FREE_BYTES): void {
  const free = freeBytes(dir);
  if (free >= minFreeBytes) return;
  const mib = (bytes: number) => Math.floor(bytes / 1024 / 1024);
  throw new NoRoomError(`the disk of ${dir} has ${mib(free)} MiB free, at least ${mib(minFreeBytes)} MiB are needed`);
}

export class NoRoomError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "NoRoomError";
  }
}

function freeBytes(dir: string): number {
  const { bavail, bsize } = statfsSync(dir);
  return bavail * bsize;
}
