import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { BUCKETS, sha256, STREAMS, subjects } from "@vibeserve/shared";
import { z } from "zod";
import { ArtifactCorruptError, ArtifactMissingError, ArtifactStore } from "../artifact/artifact-store.ts";
import { filesUnder } from "../bundle/files-under.ts";
import { championPath } from "../checkpoint/champion-file.ts";
import { safeGit } from "../checkpoint/safe-git.ts";
import type { Settings } from "../config.ts";
import { isUnreadable } from "../log/chain.ts";
import { listCampaigns, readLog, type LogBus } from "../log/event-log.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
import { ArchiveWriter } from "./archive-file.ts";
import { FILES, FOLDERS, KEY_FILES, MANIFEST, type BackupManifest } from "./backup-manifest.ts";
import { openDataBus } from "./data-bus.ts";
import { thisRelease } from "./release-file.ts";

export interface BackupOptions {
  settings: Settings;
  to: string;
  withKeys: boolean;
  version: string;
}

/**
 * Everything of a data folder in one file, while its coordinator works or while none does. The order makes it consistent without stopping anybody:
 *   B1. Results before logs: one that a log takes meanwhile is in both, and a log knows a copy by its signature. The other way round it could be in neither.
 *   B2. Logs before git and artifacts: what an event refers to was stored before the event was.
 *   B3. A log is append-only, so what is read of it is a campaign as it stood at that moment.
 * What is read is checked as the coordinator checks it: chains of logs, digests of artifacts.
 */
export async function backup({ settings, to, withKeys, version }: BackupOptions): Promise<BackupManifest> {
  await using data = await openDataBus(settings, "vibeserve backup");
  await using archive = await ArchiveWriter.create(resolve(to));
  const { bus } = data;
  const needed = new Set<string>();
  const refer = (text: string) => {
    for (const digest of text.match(/[0-9a-f]{64}/g) ?? []) needed.add(digest);
  };
  const stood = await addBuckets(bus, archive);
  const results = await addResults(bus, archive, refer);
  const { campaigns, unreadable } = await addLogs(bus, archive, refer);
  await addRepositories(settings, campaigns, archive);
  const artifacts = await addArtifacts(bus, archive, needed);
  await addFiles(settings.data, withKeys, archive);
  const manifest: BackupManifest = {
    ...{ v: 1, kind: "backup", at: Date.now(), release: thisRelease(version) },
    ...{ natsServer: bus.nc.info?.version ?? "unknown", running: data.running, keys: withKeys },
    ...{ campaigns, unreadable, results, leases: { stood, last: await lastToken(bus) }, artifacts },
    members: [...archive.members],
  };
  await archive.finish(MANIFEST, JSON.stringify(manifest, null, 1));
  return manifest;
}

const lines = (values: readonly object[]): Buffer => Buffer.from(values.map((v) => `${JSON.stringify(v)}\n`).join(""));
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");

/** Returns how many leases stood. */
async function addBuckets({ js }: LogBus, archive: ArchiveWriter): Promise<number> {
  let stood = 0;
  for (const name of [BUCKETS.agents, BUCKETS.leases]) {
    const entries: object[] = [];
    const bucket = await new Kvm(js).open(name);
    for await (const { key, revision, value, operation } of await bucket.history({ key: ">" }))
      if (operation === "PUT") entries.push({ key, revision, data: base64(value) });
    if (name === BUCKETS.leases) stood = entries.length;
    await archive.add(`kv/${name}.jsonl`, lines(entries));
  }
  return stood;
}

const Stored = z.object({ message: z.object({ subject: z.string(), seq: z.int(), data: z.base64().optional() }) });
const NotFound = z.object({ error: z.object({ code: z.literal(404) }) });
const ANSWER_MS = 10_000;

/** What waits is read by its number: the stream's one consumer is the coordinator's. Numbers have gaps, where results were taken in. */
async function addResults({ nc }: LogBus, archive: ArchiveWriter, refer: (text: string) => void): Promise<number> {
  const waiting: object[] = [];
  for (let seq = 1; ;) {
    const question = JSON.stringify({ seq, next_by_subj: subjects.result("*", "*") });
    const answer: unknown = (await nc.request(`$JS.API.STREAM.MSG.GET.${STREAMS.results}`, question, { timeout: ANSWER_MS })).json();
    if (NotFound.safeParse(answer).success) break;
    const { message } = Stored.parse(answer);
    const data = message.data ?? "";
    refer(Buffer.from(data, "base64").toString("latin1"));
    waiting.push({ subject: message.subject, data });
    seq = message.seq + 1;
  }
  await archive.add("results.jsonl", lines(waiting));
  return waiting.length;
}

async function addLogs(
  bus: LogBus,
  archive: ArchiveWriter,
  refer: (text: string) => void,
): Promise<Pick<BackupManifest, "campaigns" | "unreadable">> {
  const found: Pick<BackupManifest, "campaigns" | "unreadable"> = { campaigns: [], unreadable: [] };
  for (const id of await listCampaigns(bus))
    try {
      const log = await readLog(bus, id);
      for (const { event } of log) refer(JSON.stringify(event));
      const last = log.at(-1);
      if (!last) continue;
      await archive.add(`events/${id}.jsonl`, lines(log.map(({ bytes }) => ({ data: base64(bytes) }))));
      found.campaigns.push({ id, events: log.length, head: sha256(last.bytes), ended: last.event.fact.type === "campaign.ended" });
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      found.unreadable.push({ id, why: error.message });
    }
  return found;
}

async function addRepositories(settings: Settings, campaigns: BackupManifest["campaigns"], archive: ArchiveWriter): Promise<void> {
  using scratch = temporaryFolder("backup");
  const dir = join(settings.data, "git");
  for (const { id } of campaigns) {
    const folder = join(dir, `${id}.git`);
    if (!existsSync(join(folder, "HEAD"))) continue;
    // Not by the repository's own class, which writes its configuration anew: a coordinator may be at work in it.
    const git = safeGit(folder, settings.path);
    const file = join(scratch.path, `${id}.bundle`);
    if ((await git.raw("for-each-ref", "--count=1")).trim() !== "") {
      await git.raw("bundle", "create", "--quiet", file, "--all");
      await archive.add(`git/${id}.bundle`, readFileSync(file));
    }
    const champion = championPath(dir, id);
    if (existsSync(champion)) await archive.add(`files/git/${id}.champion.json`, readFileSync(champion));
  }
}

/** What is stored and referred to; what was pruned while this ran is as missing as if it had been before. */
async function addArtifacts({ nc }: LogBus, archive: ArchiveWriter, needed: ReadonlySet<string>): Promise<BackupManifest["artifacts"]> {
  const store = await ArtifactStore.open(nc);
  const found: BackupManifest["artifacts"] = { count: 0, bytes: 0, corrupt: [] };
  const stored = (await (await new Objm(nc).open(BUCKETS.artifacts)).list()).map((o) => o.name).filter((name) => needed.has(name));
  for (const digest of stored.sort())
    try {
      const bytes = await store.get(digest);
      await archive.add(`artifacts/${digest}`, bytes);
      found.count++;
      found.bytes += bytes.length;
    } catch (error) {
      if (error instanceof ArtifactCorruptError) found.corrupt.push(digest);
      else if (!(error instanceof ArtifactMissingError)) throw error;
    }
  return found;
}

async function addFiles(data: string, withKeys: boolean, archive: ArchiveWriter): Promise<void> {
  const folders = await Promise.all(
    FOLDERS.filter((name) => existsSync(join(data, name))).map(async (name) =>
      (await filesUnder(join(data, name))).map((path) => `${name}/${path}`),
    ),
  );
  for (const path of [...FILES, ...folders.flat()].filter((p) => existsSync(join(data, p)) && !p.endsWith(".lock")))
    await archive.add(`files/${path}`, readFileSync(join(data, path)));
  if (withKeys)
    for (const path of KEY_FILES) if (existsSync(join(data, path))) await archive.add(`keys/${path}`, readFileSync(join(data, path)));
}

async function lastToken({ jsm }: LogBus): Promise<number> {
  return (await jsm.streams.info(`KV_${BUCKETS.leases}`)).state.last_seq;
}

/** An earlier backup is never lost to a later one. Returns why it can't be there; makes its folder. */
export function whyNotTo(file: string): string | null {
  if (existsSync(file)) return `${file} exists already: a backup never replaces another`;
  mkdirSync(dirname(resolve(file)), { recursive: true, mode: 0o700 });
  return null;
}
