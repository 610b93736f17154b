import type { JetStreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, chunkSubject as chunks, nameSubject, type PruneReport } from "@vibeserve/shared";
import { ARTIFACTS_STREAM as STREAM } from "./read-artifact.ts";
import { LEAST_AGE_MS, removeUnfinished } from "./unnamed-chunks.ts";

/** Each removal is synced to disk: whoever asks gets an answer by then, and asks again. */
const SLICE_MS = 15_000;

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
 * Removes what nobody needs and is older than that, and what transfers that were given up have left. What it goes by is the coordinator's: the names, their times
 * (artifact-intake.ts), and when the broker stored a chunk. An object goes in two steps, its name first: who asks for it in between is told that it is missing.
 */
export async function pruneArtifacts({ nc, jsm, needed, olderThanMs, dryRun, now }: PruneOptions): Promise<PruneReport> {
  const startedAt = now();
  const objects = await (await new Objm(nc).open(BUCKETS.artifacts)).list();
  const report: PruneReport = { v: 1, kind: "pruned", dryRun, removed: 0, bytes: 0, kept: 0, unfinished: 0, more: false };
  const remove = async (filter: string): Promise<void> => {
    if (!dryRun) await jsm.streams.purge(STREAM, { filter });
  };
  const keep = needed();
  const stays = ({ name, mtime }: { name: string; mtime: string }): boolean =>
    keep.has(name) || !(startedAt - Date.parse(mtime) > olderThanMs);
  // A name of an older release's agent may say chunks of another name's.
  const used = new Set(objects.filter(stays).map(({ nuid }) => nuid));
  for (const object of objects) {
    const { name, nuid, size } = object;
    if (stays(object)) {
      report.kept++;
      continue;
    }
    report.more ||= !dryRun && now() - startedAt > SLICE_MS;
    if (report.more) break;
    await remove(nameSubject(name));
    if (!used.has(nuid)) await remove(chunks(nuid));
    report.removed++;
    report.bytes += size;
  }
  report.unfinished = await removeUnfinished({ nc, jsm }, now() - Math.max(LEAST_AGE_MS, olderThanMs), remove);
  return report;
}
