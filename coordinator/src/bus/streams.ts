import {
  AckPolicy,
  DeliverPolicy,
  DiscardPolicy,
  JetStreamApiError,
  RetentionPolicy,
  StorageType,
  type ConsumerConfig,
  type JetStreamManager,
  type StreamConfig,
} from "@nats-io/jetstream";
import { TimeoutError } from "@nats-io/transport-node";
import { BUCKETS, STREAMS, subjects } from "@vibeserve/shared";
import { patiently } from "../process/backoff.ts";

const SECOND_NS = 1_000_000_000;
/** An older release's agent sends its results with a msg-id, and a copy within this is dropped. All other copies the log knows by their signature. */
const DEDUPLICATION_NS = 3600 * SECOND_NS;
/** An agent that was not heard of for this long is taken for gone: three beats of 5 s. */
export const AGENT_TTL_MS = 15_000;

const base = { storage: StorageType.File } as const;

const STREAM_CONFIGS: (Partial<StreamConfig> & { name: string })[] = [
  {
    ...base,
    name: STREAMS.events,
    subjects: [subjects.event("*")],
    retention: RetentionPolicy.Limits,
    // History is never rewritten: neither the product nor a mistake may delete or purge an event.
    deny_delete: true,
    deny_purge: true,
    discard: DiscardPolicy.New,
    allow_direct: true,
  },
  {
    ...base,
    name: STREAMS.results,
    subjects: [subjects.result("*", "*")],
    // A work queue takes away each message as it is acknowledged, which is one more synced write: a fifth of all that a job costs. The reader purges many at once.
    // An installation of an older release keeps its queue, and that price.
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.New,
    duplicate_window: DEDUPLICATION_NS,
  },
  {
    ...base,
    name: `KV_${BUCKETS.agents}`,
    subjects: [`$KV.${BUCKETS.agents}.>`],
    max_msgs_per_subject: 1,
    discard: DiscardPolicy.New,
    // A rollup header of one agent would purge the entries of all.
    allow_rollup_hdrs: false,
    allow_direct: true,
  },
  {
    ...base,
    name: `KV_${BUCKETS.leases}`,
    subjects: [`$KV.${BUCKETS.leases}.>`],
    max_msgs_per_subject: 1,
    // Stored first, then told to whom it is for: no consumer an agent, and no second message.
    republish: { src: subjects.assignment("*", "*"), dest: subjects.assigned("{{wildcard(1)}}", "{{wildcard(2)}}") },
    discard: DiscardPolicy.New,
    allow_rollup_hdrs: true,
    allow_direct: true,
  },
  {
    ...base,
    name: `OBJ_${BUCKETS.artifacts}`,
    subjects: [`$O.${BUCKETS.artifacts}.C.>`, `$O.${BUCKETS.artifacts}.M.>`],
    discard: DiscardPolicy.New,
    // A rollup header of one agent's chunk would purge the artifacts of all.
    allow_rollup_hdrs: false,
    allow_direct: true,
  },
];

export const STREAM_NAMES: readonly string[] = STREAM_CONFIGS.map(({ name }) => name);

/** Results that may wait for their campaigns' logs at once: 500 a second that each take 20 ms on a slow disk are 10, and a restart brings a backlog. */
export const RESULTS_AT_ONCE = 256;
/** Name of the one durable consumer of results. */
export const RESULTS_CONSUMER = "coordinator";

/** A cluster that was just started chooses leaders, and tells them of accounts, in seconds. */
export const LEADER_MS = 30_000;

/**
 * Creates what is missing and refuses what exists in memory instead of on disk. replicas: servers that store each message. Safe to run again, and tried again for
 * 30 s where nobody can say yet: no leader, or one that has not heard of the account.
 */
export async function ensureStreams(jsm: JetStreamManager, replicas = 1): Promise<void> {
  await patiently(
    LEADER_MS,
    () => ensureAll(jsm, replicas),
    (error) => !isTooEarly(error),
  );
}

/** Servers that know no leader refuse, or leave a request without an answer. */
const isTooEarly = (error: unknown): boolean =>
  error instanceof TimeoutError ||
  (error instanceof Error && error.name === "JetStreamNotEnabled") ||
  (error instanceof JetStreamApiError && error.status === 503);

async function ensureAll(jsm: JetStreamManager, replicas: number): Promise<void> {
  for (const shape of STREAM_CONFIGS) {
    const config = { ...shape, num_replicas: replicas };
    const known = await orMissing(jsm.streams.info(config.name));
    const stored = (known ?? (await jsm.streams.add(config))).config.storage;
    // An older release's entries of agents expired, its assignments were told to nobody, and its agents could purge artifacts.
    const older =
      known &&
      (known.config.max_age > 0 ||
        (config.republish && !known.config.republish) ||
        (config.allow_rollup_hdrs === false && known.config.allow_rollup_hdrs));
    const spread = known && known.config.num_replicas !== replicas;
    if (older || spread) await jsm.streams.update(config.name, { ...config, max_age: 0 });
    if (stored !== StorageType.File) throw new Error(`stream ${config.name} is stored in ${stored}; VibeServe needs file storage`);
  }
  // An older release's queue of jobs. What waited in it is in the campaigns' logs and goes out from there.
  if (await orMissing(jsm.streams.info("VS_JOBS"))) await jsm.streams.delete("VS_JOBS");
  await ensureConsumer(jsm, STREAMS.results, {
    durable_name: RESULTS_CONSUMER,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    ack_wait: 30 * SECOND_NS,
    // Looked at in order; those of different campaigns are appended to their logs side by side.
    max_ack_pending: RESULTS_AT_ONCE,
  });
}

async function ensureConsumer(
  jsm: JetStreamManager,
  stream: string,
  config: Partial<ConsumerConfig> & { durable_name: string },
): Promise<void> {
  const known = await orMissing(jsm.consumers.info(stream, config.durable_name));
  if (!known) await jsm.consumers.add(stream, config);
  else if (known.config.max_ack_pending !== config.max_ack_pending) await jsm.consumers.update(stream, config.durable_name, config);
}

async function orMissing<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof JetStreamApiError && error.apiError().code === 404) return null;
    throw error;
  }
}
