import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { JetStreamApiError, type JetStreamClient } from "@nats-io/jetstream";
import { BUCKETS, chunkSubject, issuesOf, sha256, STREAMS, subjects } from "@vibeserve/shared";
import { z } from "zod";
import { ArtifactStore } from "../artifact/artifact-store.ts";
import { writePrivate } from "../broker/principals.ts";
import { ensureStreams, LEADER_MS } from "../bus/streams.ts";
import { CampaignRepository } from "../checkpoint/repository.ts";
import type { Settings } from "../config.ts";
import { readLog, type LogBus } from "../log/event-log.ts";
import { patiently } from "../process/backoff.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
import { ArchiveDamagedError, ArchiveReader } from "./archive-file.ts";
import { BackupManifest, MANIFEST } from "./backup-manifest.ts";
import { openDataBus } from "./data-bus.ts";
import { thisRelease, unfinishedFile, whyNot } from "./release-file.ts";

/** It can't be restored here; nothing was changed. */
export class RestoreRefusedError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "RestoreRefusedError";
  }
}

export interface Restored {
  manifest: BackupManifest;
  /** Every fencing token that is given out from now on is above it. */
  floor: number;
}

/**
 * A backup becomes a data folder, in which a coordinator then starts as after a crash at the moment of the backup.
 *   S1. All of the archive is read and compared with its manifest before anything is written.
 *   S2. No fencing token is ever given out twice. What happened after the backup is not known here, but agents may still hold leases of that time, and results under
 *       them. So leases are not brought back, and the next token is above any that a coordinator can have given before this moment, of whatever copy (floorAt).
 *   S3. Until it is whole the folder says so, and no coordinator starts in it.
 */
export async function restore({ settings, file, version }: { settings: Settings; file: string; version: string }): Promise<Restored> {
  await using archive = await ArchiveReader.open(file);
  const manifest = await verified(file, archive);
  const why = whyNot(manifest.release, thisRelease(version)) ?? whyNotInto(settings.data);
  if (why !== null) throw new RestoreRefusedError(why);
  const floor = floorAt(Date.now(), manifest);
  mkdirSync(settings.data, { recursive: true, mode: 0o700 });
  chmodSync(settings.data, 0o700);
  writePrivate(unfinishedFile(settings.data), JSON.stringify({ file, at: Date.now() }));
  await writeFiles(settings.data, archive);
  await restoreRepositories(settings, archive);
  {
    await using data = await openDataBus(settings, "vibeserve restore");
    await fill(data.bus, archive, manifest, floor, settings.nats?.replicas ?? 1);
  }
  rmSync(unfinishedFile(settings.data));
  return { manifest, floor };
}

/** S1. Throws ArchiveDamagedError naming the first member that is not as the manifest says, RestoreRefusedError for a manifest of another kind. */
async function verified(file: string, archive: ArchiveReader): Promise<BackupManifest> {
  if (!archive.members.has(MANIFEST))
    throw new ArchiveDamagedError(file, MANIFEST, "it is not there: the archive was cut off, or is no backup");
  const said: unknown = JSON.parse((await archive.read(MANIFEST)).toString("utf8"));
  const head = z.looseObject({ kind: z.literal("backup"), release: BackupManifest.shape.release }).safeParse(said);
  const parsed = BackupManifest.safeParse(said);
  if (!parsed.success) {
    const by = head.success
      ? `release ${head.data.release.version} wrote it, protocol ${head.data.release.protocol}: install that`
      : issuesOf(parsed.error);
    throw new RestoreRefusedError(`${file} is no backup that this release can read: ${by}`);
  }
  const named = new Map(parsed.data.members.map((m) => [m.path, m]));
  for (const [path, { bytes, sha256: found }] of archive.members) {
    const wanted = named.get(path);
    if (path === MANIFEST) continue;
    if (!wanted) throw new ArchiveDamagedError(file, path, "the manifest does not know it");
    if (wanted.bytes !== bytes || wanted.sha256 !== found)
      throw new ArchiveDamagedError(
        file,
        path,
        `its ${bytes} bytes hash to ${found}, the manifest says ${wanted.bytes} and ${wanted.sha256}`,
      );
  }
  const missing = parsed.data.members.find((m) => !archive.members.has(m.path));
  if (missing) throw new ArchiveDamagedError(file, missing.path, "the manifest names it and it is not there");
  return parsed.data;
}

/** Volumes that were just made have lost+found. */
function whyNotInto(data: string): string | null {
  const there = existsSync(data) ? readdirSync(data).filter((name) => name !== "lost+found") : [];
  if (there.length === 0) return null;
  return `${data} is not empty (${there.slice(0, 3).join(", ")}${there.length > 3 ? ", …" : ""}): a restore never mixes two histories; name another with --data, or move it away`;
}

/** A token is a sequence, an integer below 2^53, and at most some thousands are given a second: a clock in 1/1024 ms runs ahead of all of them until the year 2248. */
const PER_MS = 1024;

/** S2. Throws RestoreRefusedError where this machine's clock is behind what the backup has seen. */
export function floorAt(now: number, { at, leases }: Pick<BackupManifest, "at" | "leases">): number {
  const floor = now * PER_MS;
  if (now > at && floor > leases.last) return floor;
  throw new RestoreRefusedError(
    `this machine's clock says ${new Date(now).toISOString()}, and the backup was taken at ${new Date(at).toISOString()}: set the clock, or fencing tokens could be given out twice`,
  );
}

async function writeFiles(data: string, archive: ArchiveReader): Promise<void> {
  for (const path of archive.members.keys()) {
    const [, to] = /^(?:files|keys)\/(.+)$/.exec(path) ?? [];
    if (to === undefined) continue;
    mkdirSync(dirname(join(data, to)), { recursive: true, mode: 0o700 });
    writeFileSync(join(data, to), await archive.read(path), { mode: 0o600, flush: true });
  }
}

async function restoreRepositories({ data, path }: Settings, archive: ArchiveReader): Promise<void> {
  using scratch = temporaryFolder("restore");
  const deps = { dir: join(data, "git"), path, putArtifact: () => Promise.reject(new Error("a restore commits nothing")) };
  for (const name of archive.members.keys()) {
    const [, campaign] = /^git\/(.+)\.bundle$/.exec(name) ?? [];
    if (campaign === undefined) continue;
    const bundle = join(scratch.path, `${campaign}.bundle`);
    writeFileSync(bundle, await archive.read(name));
    const repository = await CampaignRepository.open(deps, campaign);
    await repository.unbundle(bundle);
    const crowned = await repository.championCommit();
    if (crowned !== null) await repository.crown(crowned);
  }
}

const Line = z.object({ subject: z.string().optional(), key: z.string().optional(), data: z.base64() });

async function fill(bus: LogBus, archive: ArchiveReader, manifest: BackupManifest, floor: number, replicas: number): Promise<void> {
  const { jsm, js, nc } = bus;
  // The coordinator spreads them over more servers where it finds them.
  await ensureStreams(jsm, replicas);
  for (const stream of [STREAMS.events, STREAMS.results, `KV_${BUCKETS.leases}`]) {
    const { messages } = (await jsm.streams.info(stream)).state;
    if (messages > 0)
      throw new RestoreRefusedError(
        `the broker's stream ${stream} holds ${messages} messages already: a restore never mixes two histories`,
      );
  }
  // S2. Nothing is in it: this only moves its next sequence.
  await jsm.streams.purge(`KV_${BUCKETS.leases}`, { seq: floor + 1 });
  const { last_seq: last } = (await jsm.streams.info(`KV_${BUCKETS.leases}`)).state;
  if (last !== floor) throw new Error(`the broker's next fencing token would be ${last + 1} instead of ${floor + 1}`);
  for (const subject of [chunkSubject("x"), subjects.result("x", "x"), `$KV.${BUCKETS.agents}.x`, subjects.event("x")])
    await untilHeard(js, subject);
  const store = await ArtifactStore.open(nc);
  for (const path of archive.members.keys()) if (path.startsWith("artifacts/")) await store.put(await archive.read(path));
  const publish = async (path: string, subjectOf: (line: z.infer<typeof Line>) => string) => {
    if (!archive.members.has(path)) return;
    const lines = (await archive.read(path)).toString("utf8").split("\n");
    const all = lines.filter((l) => l !== "").map((l) => Line.parse(JSON.parse(l)));
    await publishAll(
      js,
      all.map((line) => ({ subject: subjectOf(line), data: Buffer.from(line.data, "base64") })),
    );
  };
  await publish("results.jsonl", (line) => line.subject ?? "");
  await publish(`kv/${BUCKETS.agents}.jsonl`, (line) => `$KV.${BUCKETS.agents}.${line.key ?? ""}`);
  for (const { id, events, head } of manifest.campaigns) {
    await publish(`events/${id}.jsonl`, () => subjects.event(id));
    const log = await readLog(bus, id);
    const found = sha256(log.at(-1)?.bytes ?? new Uint8Array());
    if (log.length !== events || found !== head) throw new Error(`campaign ${id} came back with ${log.length} events of ${events}`);
  }
}

/** A cluster's stream that was just made may not be known yet to the server that we are at. It is asked to store after what nobody has stored, until it refuses. */
async function untilHeard(js: JetStreamClient, subject: string): Promise<void> {
  const never = { timeout: STORE_MS, expect: { lastSequence: Number.MAX_SAFE_INTEGER } };
  await patiently(LEADER_MS, async () => {
    const refused: unknown = await js.publish(subject, new Uint8Array(), never).catch((error: unknown) => error);
    if (!(refused instanceof JetStreamApiError) || refused.status === 503) throw refused;
  });
}

/** So many are on their way at once: the broker stores those of one connection in their order, and syncs many together. */
const WINDOW = 256;
const STORE_MS = 30_000;

async function publishAll(js: JetStreamClient, messages: readonly { subject: string; data: Uint8Array }[]): Promise<void> {
  for (let i = 0; i < messages.length; i += WINDOW)
    await Promise.all(messages.slice(i, i + WINDOW).map(({ subject, data }) => js.publish(subject, data, { timeout: STORE_MS })));
}
