import { devicePool, type Job, type JobResult } from "@vibeserve/shared";
import { built, SEED, type Campaign } from "../campaign/campaign.machine.ts";
import { canaryKey, canarySpec } from "./canary.ts";
import type { Claim } from "./dispatch.ts";
import type { FleetHealth } from "./health.ts";
import type { JobStanding } from "./lease-table.ts";

/**
 * Asks devices what is known already: the seed of a campaign of their pool against itself. A suspect device is asked at once, a good one by age. Canaries belong to no
 * campaign and cost none anything; one that is lost, with the coordinator or its device, is asked again. A pool with one device has none: its campaign would only wait.
 */
export interface CanariesDeps {
  health: FleetHealth;
  campaigns: () => readonly Campaign[];
  offer: (job: Job, claim: Claim, device: string) => void;
  now: () => number;
}

/** The campaign that canaries say they are of; `newId` makes none without a time in it. */
export const CANARIES = "canaries";
/** A driver, a cooler or a neighbour changes a device within days; a canary takes a minute. */
const AGE_MS = 6 * 3600_000;
/** After one that did not come back, and between those of a device that stays suspect. */
const AGAIN_MS = 10 * 60_000;
const DEADLINE_MS = 600_000;
const LOOK_MS = 60_000;

export class Canaries implements AsyncDisposable {
  readonly #deps: CanariesDeps;
  readonly #asked = new Map<string, { job: Job; at: number; over: boolean }>();
  readonly #seen = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;
  #n = 0;

  constructor(deps: CanariesDeps) {
    this.#deps = deps;
    this.#timer = setInterval(() => this.look(), LOOK_MS).unref();
  }

  /** Asks every device that is due. */
  look(): void {
    const now = this.#deps.now();
    for (const { deviceId, pool, simulated, peers } of this.#deps.health.devices()) {
      if (peers === 0) continue;
      const record = this.#deps.health.of(deviceId);
      const seen = this.#seen.get(deviceId) ?? now;
      this.#seen.set(deviceId, seen);
      const asked = this.#asked.get(deviceId);
      const due =
        record.health === "quarantined" ? false : record.health === "suspect" ? true : now - Math.max(seen, record.canaryAt ?? 0) > AGE_MS;
      if (!due || (asked && now - asked.at < AGAIN_MS)) continue;
      const job = this.#jobFor(deviceId, pool, simulated, now);
      if (!job) continue;
      this.#asked.set(deviceId, { job, at: now, over: false });
      this.#deps.offer(job, { simulated, weight: 1, priority: 0, deadlineAt: null }, deviceId);
    }
  }

  standing(job: { id: string; attempt: number }): JobStanding {
    const open = [...this.#asked.values()].some((a) => a.job.id === job.id && !a.over);
    return open ? { kind: "open" } : { kind: "over", reason: "this canary is over" };
  }

  expire(jobId: string): void {
    for (const asked of this.#asked.values()) if (asked.job.id === jobId) asked.over = true;
  }

  /** False: nobody waits for it any more. */
  settle({ jobId, deviceId, outcome }: JobResult, stale: string | null): boolean {
    const asked = this.#asked.get(deviceId);
    if (stale !== null || asked?.job.id !== jobId || asked.over) return false;
    asked.over = true;
    if (asked.job.spec.kind === "bench") this.#deps.health.canary(deviceId, canaryKey(asked.job.spec), outcome);
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
  }

  /** Null: no campaign of the pool has a seed that was built and checked on one device; one that needs several judges none of them. */
  #jobFor(deviceId: string, pool: string, simulated: boolean, now: number): Job | null {
    const [of] = this.#deps
      .campaigns()
      .filter(
        (c) =>
          c.agent &&
          c.device &&
          (c.target.deviceCount ?? 1) === 1 &&
          devicePool(c.agent, c.device) === pool &&
          c.device.simulated === simulated &&
          c.experiments.length > 0,
      )
      .sort((a, b) => b.createdAt - a.createdAt);
    const stack = of && built(of, SEED);
    if (!stack) return null;
    return {
      ...{ v: 1, kind: "job", id: `canary-${now.toString(36)}-${++this.#n}`, campaign: CANARIES, experiment: deviceId, attempt: 1, pool },
      ...{ issuedAt: now, deadlineMs: DEADLINE_MS, spec: canarySpec(of.target, stack) },
    };
  }
}
