import type { JetStreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, type PruneReport } from "@vibeserve/shared";

/** Chunks without an object that are younger may still become one: a transfer that stalls is given up in a minute. */
const LEAST_AGE_MS = 3_600_000;
/** Each removal is synced to disk: whoever asks gets an answer by then, and asks again. */
const SLICE_MS = 15_000;
const STREAM = `OBJ_${BUCKETS.artifacts}`;
const chunks = (id: string): string => `$O.${BUCKETS.artifacts}.C.${id}`;

export interface PruneOptions {
  nc: NatsConnection;
  jsm: JetStreamManager;
  /** Digests that may be needed. More than that does no harm. */
  needed: () => ReadonlySet<string>;
  olderThanMs: number;
  dryRun: boolean;
  now: () => number;
}

/**
 * Removes what nobody needs and is older than that, and what transfers that were given up have left. An object goes in two steps, its name first: who asks for
 * it in between is told that it is missing.
 */
export async function pruneArtifacts({ nc, jsm, needed, olderThanMs, dryRun, now }: PruneOptions): Promise<PruneReport> {
  const startedAt = now();
  const objects = await (await new Objm(nc).open(BUCKETS.artifacts)).list();
  const report: PruneReport = { v: 1, kind: "pruned", dryRun, removed: 0, bytes: 0, kept: 0, unfinished: 0, more: false };
  const remove = async (filter: string): Promise<void> => {
    if (!dryRun) await jsm.streams.purge(STREAM, { filter });
  };
  const keep = needed();
  for (const { name, nuid, size, mtime } of objects) {
    if (keep.has(name) || !(startedAt - Date.parse(mtime) > olderThanMs)) {
      report.kept++;
      continue;
    }
    report.more ||= !dryRun && now() - startedAt > SLICE_MS;
    if (report.more) break;
    await remove(`$O.${BUCKETS.artifacts}.M.${Buffer.from(name).toString("base64").replaceAll("+", "-").replaceAll("/", "_")}`);
    await remove(chunks(nuid));
    report.removed++;
    report.bytes += size;
  }
  const named = new Set(objects.map((o) => chunks(o.nuid)));
  const { state } = await jsm.streams.info(STREAM, { subjects_filter: chunks("*") });
  for (const subject of Object.keys(state.subjects ?? {})) {
    if (named.has(subject)) continue;
    const last = await jsm.direct.getMessage(STREAM, { last_by_subj: subject });
    if (!last || startedAt - last.time.getTime() < Math.max(LEAST_AGE_MS, olderThanMs)) continue;
    await remove(subject);
    report.unfinished++;
  }
  return report;
}
