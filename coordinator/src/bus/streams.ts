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
import { BUCKETS, STREAMS, durables, subjects } from "@vibeserve/shared";

const SECOND_NS = 1_000_000_000;
/** A repeated publish within this is dropped by its msg-id. A restart after a longer stop publishes again; the lease then refuses the copy. */
const DEDUPLICATION_NS = 3600 * SECOND_NS;
/** An agent refreshes its registry entry every third of this. */
export const AGENT_TTL_MS = 15_000;
/**
 * A job that its agent neither acknowledges nor extends (`working()`, every 2 s) for this long is delivered again. It is how long a job that a killed agent had
 * fetched but not yet leased is out of reach; a second delivery while the first is worked on costs a refused lease and nothing else.
 */
const JOB_ACK_WAIT_NS = 8 * SECOND_NS;

const base = { storage: StorageType.File, num_replicas: 1 } as const;

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
    name: STREAMS.jobs,
    subjects: [subjects.job("*", "*")],
    retention: RetentionPolicy.Workqueue,
    discard: DiscardPolicy.New,
    duplicate_window: DEDUPLICATION_NS,
  },
  {
    ...base,
    name: STREAMS.results,
    subjects: [subjects.result("*", "*")],
    retention: RetentionPolicy.Workqueue,
    discard: DiscardPolicy.New,
    duplicate_window: DEDUPLICATION_NS,
  },
  {
    ...base,
    name: `KV_${BUCKETS.agents}`,
    subjects: [`$KV.${BUCKETS.agents}.>`],
    max_msgs_per_subject: 1,
    max_age: AGENT_TTL_MS * 1_000_000,
    // Must not exceed max_age.
    duplicate_window: AGENT_TTL_MS * 1_000_000,
    discard: DiscardPolicy.New,
    allow_rollup_hdrs: true,
    allow_direct: true,
  },
  {
    ...base,
    name: `KV_${BUCKETS.leases}`,
    subjects: [`$KV.${BUCKETS.leases}.>`],
    max_msgs_per_subject: 1,
    discard: DiscardPolicy.New,
    allow_rollup_hdrs: true,
    allow_direct: true,
  },
  {
    ...base,
    name: `OBJ_${BUCKETS.artifacts}`,
    subjects: [`$O.${BUCKETS.artifacts}.C.>`, `$O.${BUCKETS.artifacts}.M.>`],
    discard: DiscardPolicy.New,
    allow_rollup_hdrs: true,
    allow_direct: true,
  },
];

/** Name of the one durable consumer of results. */
export const RESULTS_CONSUMER = "coordinator";

/** Creates what is missing and refuses what exists in memory instead of on disk. Safe to run again. */
export async function ensureStreams(jsm: JetStreamManager): Promise<void> {
  for (const config of STREAM_CONFIGS) {
    const info = await orMissing(jsm.streams.info(config.name));
    const stored = (info ?? (await jsm.streams.add(config))).config.storage;
    if (stored !== StorageType.File) throw new Error(`stream ${config.name} is stored in ${stored}; VibeServe needs file storage`);
  }
  await ensureConsumer(jsm, STREAMS.results, {
    durable_name: RESULTS_CONSUMER,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    ack_wait: 30 * SECOND_NS,
    // One at a time and in order: each is appended to a log before the next is looked at.
    max_ack_pending: 1,
  });
}

/** The pool's two pull consumers; made by the coordinator, since an agent may not create consumers on jobs. */
export async function ensurePool(jsm: JetStreamManager, pool: string): Promise<void> {
  const common = { ack_policy: AckPolicy.Explicit, deliver_policy: DeliverPolicy.All, ack_wait: JOB_ACK_WAIT_NS, max_deliver: -1 };
  await ensureConsumer(jsm, STREAMS.jobs, {
    ...common,
    durable_name: durables.build(pool),
    filter_subjects: [subjects.job(pool, "build")],
  });
  await ensureConsumer(jsm, STREAMS.jobs, {
    ...common,
    durable_name: durables.device(pool),
    filter_subjects: (["check", "bench", "baseline", "profile", "exec"] as const).map((kind) => subjects.job(pool, kind)),
  });
}

async function ensureConsumer(
  jsm: JetStreamManager,
  stream: string,
  config: Partial<ConsumerConfig> & { durable_name: string },
): Promise<void> {
  const known = await orMissing(jsm.consumers.info(stream, config.durable_name));
  if (!known) await jsm.consumers.add(stream, config);
  // An older release knew fewer kinds of jobs.
  else if (String(known.config.filter_subjects) !== String(config.filter_subjects))
    await jsm.consumers.update(stream, config.durable_name, config);
}

async function orMissing<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof JetStreamApiError && error.apiError().code === 404) return null;
    throw error;
  }
}
