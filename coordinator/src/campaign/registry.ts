import { digestOf, type CampaignOptions, type JobResult, type Target, type Verdict } from "@vibeserve/shared";
import type { JobStanding } from "../fleet/lease-table.ts";
import { listCampaigns } from "../log/event-log.ts";
import { CampaignActor, type ActorDeps } from "./campaign.actor.ts";
import type { Blameless } from "./counting.ts";
import type { JobEntry } from "./ledger.ts";

/**
 * All campaigns of this coordinator. Each is an actor of its own; they meet only at the devices, where the scheduler shares
 * out what they ask for.
 */
export class CampaignRegistry {
  readonly #deps: ActorDeps;
  readonly #actors = new Map<string, CampaignActor>();
  /** Campaigns whose log can't be trusted or read: listed, never run. */
  readonly #broken = new Map<string, string>();

  private constructor(deps: ActorDeps) {
    this.#deps = deps;
  }

  /** Replays every campaign; nothing runs before `start`, so that the fleet can be opened in between. */
  static async open(deps: ActorDeps): Promise<CampaignRegistry> {
    const registry = new CampaignRegistry(deps);
    for (const id of await listCampaigns(deps.bus)) {
      try {
        registry.#actors.set(id, await CampaignActor.open(deps, id));
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        registry.#broken.set(id, why);
        deps.log("campaign.unreadable", { campaign: id, why });
      }
    }
    return registry;
  }

  start(): void {
    for (const actor of this.#actors.values()) actor.start();
  }

  /** Newest first. */
  list(): CampaignActor[] {
    return [...this.#actors.values()].sort((a, b) => b.state.createdAt - a.state.createdAt);
  }

  get broken(): ReadonlyMap<string, string> {
    return this.#broken;
  }

  /** By id; null: the newest. */
  find(id: string | null): CampaignActor | null {
    return (id === null ? this.list()[0] : this.#actors.get(id)) ?? null;
  }

  async submit(target: Target, options: CampaignOptions, stackDigest: string): Promise<CampaignActor> {
    const id = this.#newId(target.name);
    const actor = await CampaignActor.create(this.#deps, id, {
      type: "campaign.created",
      target,
      workloadDigest: digestOf(target.workload),
      stackDigest,
      options,
    });
    this.#actors.set(id, actor);
    actor.start();
    return actor;
  }

  standing({ campaign, id, attempt }: { campaign: string; id: string; attempt: number }): JobStanding {
    const standing = this.#actors.get(campaign)?.standing(id, attempt);
    return standing ?? { kind: "over", reason: `no campaign here has asked for job ${id}` };
  }

  /** Null: no such campaign. */
  async settle(result: JobResult, stale: string | null, judge?: (entry: JobEntry) => Verdict | null): Promise<boolean | null> {
    const actor = this.#actors.get(result.campaign);
    return actor ? actor.settle(result, stale, judge) : null;
  }

  async expire({ campaign, id, attempt }: { campaign: string; id: string; attempt: number }, why: string, as?: Blameless): Promise<void> {
    await this.#actors.get(campaign)?.expire(id, attempt, why, as);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#actors.values()].map((actor) => actor.close()));
  }

  /** Short enough that ids of jobs, which begin with it, stay within 64 characters; the time makes it sort and be unique here. */
  #newId(name: string): string {
    for (let at = this.#deps.now(); ; at++) {
      const id = `${name.slice(0, 18)}-${at.toString(36)}`;
      if (!this.#actors.has(id) && !this.#broken.has(id)) return id;
    }
  }
}
