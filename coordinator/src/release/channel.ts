import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ChannelFile, Id, issuesOf, type Promotion, type Release } from "@vibeserve/shared";
import { acquireLock } from "../process/lock.ts";

/** Enough to see a year of weekly promotions; the file stays small for whoever polls it. */
const HISTORY = 100;

export const channelsFolder = (data: string): string => join(data, "channels");

/** A channel's file as it is now; a channel that does not exist yet is empty. Throws Error for a bad name, and for a file that is none. */
export function readChannel(data: string, name: string): ChannelFile {
  if (!Id.safeParse(name).success) throw new Error(`channel "${name}": a name has 1–64 letters, digits, "_" or "-"`);
  const path = join(channelsFolder(data), `${name}.json`);
  if (!existsSync(path)) return { v: 1, kind: "channel", name, current: null, history: [] };
  const parsed = ChannelFile.safeParse(JSON.parse(readFileSync(path, "utf8")));
  if (!parsed.success) throw new Error(`${path} is no channel file: ${issuesOf(parsed.error)}`);
  return parsed.data;
}

/** Names of the channels that there are. */
export function channels(data: string): string[] {
  const folder = channelsFolder(data);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((f) => f.endsWith(".json"))
    .map((f) => f.slice(0, -".json".length))
    .sort();
}

/** Adds what `decide` says to the channel, one writer at a time, and replaces its file in one step. Returns the file's path. Throws what `decide` throws. */
export function changeChannel(
  data: string,
  name: string,
  decide: (channel: ChannelFile) => Promotion,
): { path: string; channel: ChannelFile } {
  const path = join(channelsFolder(data), `${name}.json`);
  readChannel(data, name);
  mkdirSync(channelsFolder(data), { recursive: true });
  const lock = acquireLock(join(channelsFolder(data), `${name}.lock`), `vibeserve, channel ${name}`);
  try {
    const before = readChannel(data, name);
    const next = decide(before);
    const channel = ChannelFile.parse({ ...before, current: next, history: [...before.history, next].slice(-HISTORY) });
    writeFileSync(`${path}.new`, `${JSON.stringify(channel, null, 2)}\n`);
    renameSync(`${path}.new`, path);
    return { path, channel };
  } finally {
    lock.release();
  }
}

/** What a rollback without a name goes back to: what was served before what is served now was promoted. Null: nothing was. */
export function servedBefore({ current, history }: ChannelFile): Release | null {
  const isCurrent = (p: Promotion): boolean => p.release.treeDigest === current?.release.treeDigest;
  const promoted = history.findLastIndex((p) => p.action === "promote" && isCurrent(p));
  const left = history.slice(0, promoted < 0 ? history.findIndex(isCurrent) : promoted);
  return left.findLast((p) => !isCurrent(p))?.release ?? null;
}
