import { statfsSync } from "node:fs";
import type { JetStreamManager } from "@nats-io/jetstream";
import { PROTOCOL } from "@vibeserve/shared";
import type { AgentPrincipal } from "../broker/principals.ts";
import type { CampaignRegistry } from "../campaign/registry.ts";
import type { AgentRegistry } from "../fleet/agent-registry.ts";
import type { Fleet } from "../fleet/fleet.ts";
import { slotOf } from "../fleet/schedulable.ts";
import { inTime } from "../process/within.ts";
import type { Scheduler } from "../schedule/scheduler.ts";
import type { Checked } from "./checks.ts";
import type { GaugeName, Metrics } from "./metrics.ts";
import { Money } from "./money.ts";
import { Tally } from "./tally.ts";

/** What a coordinator that has begun lets be measured. */
export interface Measurable extends Checked {
  version: string;
  jsm: Checked["jsm"] & Pick<JetStreamManager, "getAccountInfo">;
  brokerVersion: () => string;
  enrolled: () => readonly AgentPrincipal[];
  waiting: () => number;
  scheduler: Pick<Scheduler, "wakeAt" | "snapshot">;
  registry: AgentRegistry;
  campaigns: CampaignRegistry;
  fleet: Fleet;
  /** The data folder. */
  data: string;
  /** What all campaigns together may spend, US dollars; null: no bound. */
  usd: number | null;
  canaries: boolean;
}

/** What is true at a scrape, read from what is there anyway; some ms with ten thousand agents. Nothing of it is kept. */
export class Measured {
  readonly #metrics: Metrics;
  readonly #money = new Money();

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
  }

  async take(of: Measurable, now: number): Promise<void> {
    this.#metrics.set("vibeserve_build_info", [[{ version: of.version, protocol: String(PROTOCOL) }, 1]]);
    this.#metrics.set("vibeserve_broker_info", [[{ version: of.brokerVersion() }, 1]]);
    this.#agents(of, now);
    this.#queue(of, now);
    this.#campaigns(of, now);
    await this.#store(of);
  }

  #agents({ registry, enrolled, waiting, fleet, canaries }: Measurable, now: number): void {
    const agents = new Tally();
    for (const { agentId, pools } of enrolled()) {
      const state = registry.incompatible(agentId) ? "incompatible" : (registry.get(agentId)?.state ?? "away");
      agents.add({ pool: pools[0] ?? "", state });
    }
    const devices = new Tally();
    const good = new Map<string, { pool: string; ages: number[]; n: number }>();
    for (const { state, pools, devices: own } of registry.list())
      for (const { id, simulated } of own) {
        const pool = pools[0] ?? "";
        const { health, canaryAt } = fleet.health.of(id);
        devices.add({ pool, state, health, simulated: String(simulated) });
        if (state !== "ready" || health !== "good") continue;
        const peers = good.get(`${pool} ${simulated}`) ?? { pool, ages: [], n: 0 };
        good.set(`${pool} ${simulated}`, peers);
        peers.n++;
        if (canaryAt !== null) peers.ages.push(now - canaryAt);
      }
    const oldest = new Map<string, number>();
    for (const { pool, ages, n } of good.values())
      if (canaries && n > 1 && ages.length > 0) oldest.set(pool, Math.max(oldest.get(pool) ?? 0, ...ages));
    this.#metrics.set("vibeserve_agents", agents);
    this.#metrics.set("vibeserve_agents_waiting", [[{}, waiting()]]);
    this.#metrics.set("vibeserve_devices", devices);
    this.#metrics.set(
      "vibeserve_canary_age_seconds",
      [...oldest].map(([pool, ms]) => [{ pool }, ms / 1000]),
    );
  }

  #queue({ scheduler, fleet: { dispatcher, leases } }: Measurable, now: number): void {
    const [slots, free, waiting, oldest, leased] = [new Tally(), new Tally(), new Tally(), new Tally(), new Tally()];
    for (const lane of scheduler.snapshot(now).lanes) {
      const labels = { pool: lane.pool, slot: lane.slot, simulated: String(lane.simulated) };
      slots.add(labels, lane.devices);
      free.add(labels, lane.free);
      waiting.add(labels, 0);
      oldest.add(labels, 0);
    }
    for (const { job, simulated } of dispatcher.waiting()) {
      const labels = { pool: job.pool, slot: slotOf(job.spec.kind), simulated: String(simulated) };
      waiting.add(labels);
      oldest.most(labels, Math.max(0, now - job.issuedAt) / 1000);
    }
    for (const { job } of leases.list()) leased.add({ pool: job.pool });
    this.#metrics.set("vibeserve_slots", slots);
    this.#metrics.set("vibeserve_slots_free", free);
    this.#metrics.set("vibeserve_queue_jobs", waiting);
    this.#metrics.set("vibeserve_queue_oldest_wait_seconds", oldest);
    this.#metrics.set("vibeserve_leases", leased);
    this.#metrics.set("vibeserve_scheduler_last_pass_timestamp_seconds", [[{}, dispatcher.passedAt / 1000]]);
  }

  #campaigns({ campaigns, usd }: Measurable, now: number): void {
    const phases = new Tally();
    phases.add({ phase: "unread" }, campaigns.unread);
    phases.add({ phase: "unreadable" }, campaigns.broken.size);
    for (const phase of ["paused", "waiting", "searching", "crowning", "proven", "not-proven", "cancelled", "failed"])
      phases.add({ phase }, 0);
    this.#metrics.set("vibeserve_models_budget_dollars", usd === null ? [] : [[{}, usd]]);
    // Half of the past is not a number of it: it is absent until all logs are read.
    const all = campaigns.unread > 0 ? [] : campaigns.list();
    let [silentMs, used] = [0, 0];
    for (const { state, waits } of all) {
      const phase =
        state.ended?.outcome ??
        (state.pausedAt ? "paused" : waits.length > 0 ? "waiting" : state.searchEnded === null ? "searching" : "crowning");
      phases.add({ phase });
      if (state.ended) continue;
      if (!state.pausedAt) silentMs = Math.max(silentMs, now - state.lastAt);
      if (state.target.budget.usd > 0) used = Math.max(used, this.#money.of(state.turns).committedUsd / state.target.budget.usd);
    }
    this.#metrics.set("vibeserve_campaigns", phases);
    if (campaigns.unread > 0) return;
    this.#metrics.set("vibeserve_campaign_silence_seconds", [[{}, silentMs / 1000]]);
    this.#metrics.set("vibeserve_campaign_budget_used_ratio", [[{}, used]]);
    const spent = this.#money.sum(all.map(({ state }) => state.turns));
    this.#metrics.set("vibeserve_models_committed_dollars", [[{}, spent.committedUsd]]);
    this.#metrics.total("vibeserve_models_spent_dollars_total", spent.usd);
    this.#metrics.total("vibeserve_models_tokens_total", spent.tokens);
    this.#metrics.total("vibeserve_models_turns_total", spent.turns);
  }

  async #store({ nc, jsm, store, data }: Measurable): Promise<void> {
    const [rtt, account] = await Promise.all([soon(nc.rtt()), soon(jsm.getAccountInfo())]);
    const maybe = (name: GaugeName, value: number | undefined) => this.#metrics.set(name, value === undefined ? [] : [[{}, value]]);
    maybe("vibeserve_broker_rtt_seconds", rtt === null ? undefined : rtt / 1000);
    maybe("vibeserve_store_stalled_seconds", store.stalledMs / 1000);
    maybe("vibeserve_store_bytes", account?.storage);
    const limit = account?.limits.max_storage ?? -1;
    maybe("vibeserve_store_limit_bytes", limit > 0 ? limit : undefined);
    const { bavail, blocks, bsize } = statfsSync(data);
    maybe("vibeserve_data_free_bytes", bavail * bsize);
    maybe("vibeserve_data_size_bytes", blocks * bsize);
  }
}

/** A scrape is not held up by a broker that is away. */
const SOON_MS = 700;

const soon = <T>(answer: Promise<T>): Promise<T | null> => inTime(answer, SOON_MS, () => new Error("late")).catch(() => null);
