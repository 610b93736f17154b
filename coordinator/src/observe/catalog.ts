/**
 * Every metric of this product, by Prometheus' conventions: base units in the name, `_total` for what only rises. Labels have few values: pools, kinds, states, roles.
 * None has an id of a campaign, job, agent or device: those are in `vibeserve agents`, `explain`, `cost` and the log.
 */
interface Described {
  kind: "gauge" | "counter" | "histogram";
  help: string;
  labels?: readonly string[];
  buckets?: readonly number[];
}

/** A build from the cache takes tenths of a second, the longest measurements twenty minutes. */
const JOB_S = [0.1, 0.5, 1, 5, 15, 60, 180, 600, 1200, 3600];
/** A synced write takes 1 to 50 ms; one without an answer is tried again after 2 s. */
const STORE_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2];

export const CATALOG = {
  vibeserve_build_info: {
    kind: "gauge",
    help: "1; the coordinator's release, and the protocol that it and its agents speak",
    labels: ["version", "protocol"],
  },
  vibeserve_broker_info: { kind: "gauge", help: "1; the nats-server's release", labels: ["version"] },
  vibeserve_agents: {
    kind: "gauge",
    help: "Enrolled agents; state ready, draining, maintenance, incompatible, or away: not heard of",
    labels: ["pool", "state"],
  },
  vibeserve_agents_waiting: { kind: "gauge", help: "Agents that asked to join and wait for a person's approval" },
  vibeserve_devices: { kind: "gauge", help: "Devices of agents that are there", labels: ["pool", "state", "health", "simulated"] },
  vibeserve_slots: {
    kind: "gauge",
    help: "Places at which a job can run: devices and builders that are there",
    labels: ["pool", "slot", "simulated"],
  },
  vibeserve_slots_free: {
    kind: "gauge",
    help: "Of these, those that would take a job now; their share is the idle share",
    labels: ["pool", "slot", "simulated"],
  },
  vibeserve_canary_age_seconds: {
    kind: "gauge",
    help: "Since the oldest last canary of the good devices that have had one and have peers; absent: there is none, or canaries are off",
    labels: ["pool"],
  },
  vibeserve_queue_jobs: { kind: "gauge", help: "Jobs that wait to be given out", labels: ["pool", "slot", "simulated"] },
  vibeserve_queue_oldest_wait_seconds: {
    kind: "gauge",
    help: "How long the oldest of them has waited since its campaign asked for it; 0: none waits",
    labels: ["pool", "slot", "simulated"],
  },
  vibeserve_leases: { kind: "gauge", help: "Jobs that are given out", labels: ["pool"] },
  vibeserve_scheduler_last_pass_timestamp_seconds: { kind: "gauge", help: "When the scheduler was last asked what may start" },
  vibeserve_jobs_settled_total: {
    kind: "counter",
    help: "Attempts of campaigns' jobs that are over; outcome: as JobResult has it, or expired; attribution: whose a failure is, none where it is none",
    labels: ["kind", "outcome", "attribution", "simulated"],
  },
  vibeserve_job_duration_seconds: {
    kind: "histogram",
    help: "From begin to end of accepted results, by the agents' clocks",
    labels: ["pool", "kind", "simulated"],
    buckets: JOB_S,
  },
  vibeserve_builds_total: { kind: "counter", help: "Builds that were answered; cached: an agent had it already", labels: ["cached"] },
  vibeserve_results_refused_total: {
    kind: "counter",
    help: "Results that count for nothing; reason: malformed, subject, signature, unstorable, unknown-campaign, stale (attempt or fencing token), impossible (numbers that can't be)",
    labels: ["reason"],
  },
  vibeserve_campaigns: {
    kind: "gauge",
    help: "Campaigns; phase unread, unreadable, paused, waiting, searching, crowning, or how it ended: proven, not-proven, cancelled, failed",
    labels: ["phase"],
  },
  vibeserve_campaign_silence_seconds: {
    kind: "gauge",
    help: "Of the campaigns that go on, how long the one that has been silent longest has had no new fact; 0: none goes on",
  },
  vibeserve_campaign_budget_used_ratio: {
    kind: "gauge",
    help: "Of the campaigns that go on, the greatest share of its own budget in US dollars that one has spent or promised; 0: none has one",
  },
  vibeserve_models_spent_dollars_total: {
    kind: "counter",
    help: "US dollars settled for turns of models, of all campaigns in the logs",
    labels: ["role"],
  },
  vibeserve_models_committed_dollars: { kind: "gauge", help: "US dollars settled, and promised for turns under way" },
  vibeserve_models_budget_dollars: { kind: "gauge", help: "US dollars that all campaigns together may spend; absent: no bound is set" },
  vibeserve_models_tokens_total: {
    kind: "counter",
    help: "Tokens as the providers billed them, of all campaigns in the logs; direction input, output, cache-read, cache-write",
    labels: ["role", "direction"],
  },
  vibeserve_models_turns_total: {
    kind: "counter",
    help: "Turns of models that are over, of all campaigns in the logs; status answered, said, or the failure's code",
    labels: ["role", "status"],
  },
  vibeserve_broker_connected: { kind: "gauge", help: "1: the coordinator has a connection to the broker" },
  vibeserve_broker_reconnects_total: { kind: "counter", help: "Connections to the broker that were made again" },
  vibeserve_broker_rtt_seconds: { kind: "gauge", help: "To the broker and back, at the scrape; absent: no answer within 0.7 s" },
  vibeserve_event_log_write_seconds: {
    kind: "histogram",
    help: "From publishing a fact until JetStream says that it is on disk; its count is the writes of campaigns' logs",
    buckets: STORE_S,
  },
  vibeserve_store_stalled_seconds: {
    kind: "gauge",
    help: "Since the first store that failed (no answer, no room, no quorum) with none stored after it; 0: the last one was stored, or none was asked for in the last minute",
  },
  vibeserve_store_bytes: { kind: "gauge", help: "What JetStream stores for the coordinator" },
  vibeserve_store_limit_bytes: { kind: "gauge", help: "What JetStream may store for it; absent: no limit is set, and the disk is it" },
  vibeserve_data_free_bytes: { kind: "gauge", help: "Free space on the data folder's disk" },
  vibeserve_data_size_bytes: { kind: "gauge", help: "Size of that disk" },
  vibeserve_orphaned_processes_total: {
    kind: "counter",
    help: "Brokers of an earlier life that were found; fate adopted, replaced",
    labels: ["fate"],
  },
  vibeserve_log_events_total: {
    kind: "counter",
    help: "Events in the coordinator's log, by their name: agent.left, lease.lost, broker.died, effect.failed, …",
    labels: ["event"],
  },
} as const satisfies Record<string, Described>;

type Named<K extends Described["kind"]> = {
  [N in keyof typeof CATALOG]: (typeof CATALOG)[N]["kind"] extends K ? N : never;
}[keyof typeof CATALOG];
export type GaugeName = Named<"gauge">;
export type CounterName = Named<"counter">;
export type HistogramName = Named<"histogram">;
