import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CampaignEvent, Instant, PROTOCOL } from "@vibeserve/shared";
import { z } from "zod";
import { writePrivate } from "../broker/principals.ts";

/** Version of what is stored: events of campaigns' logs. Raised with `v` of CampaignEvent, when an older release can't read a newer one's logs. */
export const LOG: number = CampaignEvent.shape.v.value;

/** `<data>/release.json`: which release wrote the data folder last. Absent: one that did not say, of protocol 1 and log 1. */
export const ReleaseFile = z.strictObject({
  v: z.literal(1),
  kind: z.literal("release"),
  version: z.string(),
  protocol: z.int().min(1),
  log: z.int().min(1),
  /** When a coordinator of it started here last. */
  at: Instant,
});
export type ReleaseFile = z.infer<typeof ReleaseFile>;

/** What can be compared between releases. */
export type Release = Pick<ReleaseFile, "version" | "protocol" | "log">;

export const thisRelease = (version: string): Release => ({ version, protocol: PROTOCOL, log: LOG });

const path = (data: string): string => join(data, "release.json");

/** A folder with this in it was not restored to the end. */
export const unfinishedFile = (data: string): string => join(data, "restore.unfinished");

/** Null: there is none. Throws Error for a file that is none. */
export function readRelease(data: string): ReleaseFile | null {
  if (!existsSync(path(data))) return null;
  // A later release may say more: what is compared here stays where it is.
  const parsed = z.looseObject(ReleaseFile.shape).safeParse(JSON.parse(readFileSync(path(data), "utf8")));
  if (!parsed.success) throw new Error(`${path(data)} does not say which release wrote it`);
  const { v, kind, version, protocol, log, at } = parsed.data;
  return { v, kind, version, protocol, log, at };
}

export function writeRelease(data: string, version: string): void {
  writePrivate(
    path(data),
    JSON.stringify({ v: 1, kind: "release", ...thisRelease(version), at: Date.now() } satisfies ReleaseFile, null, 2),
  );
}

/** Why `to` must not take over what `from` has written; null: it may. Within one protocol and log nothing is refused: members are only added. */
export function whyNot(from: Release, to: Release): string | null {
  const say = (what: string, a: number, b: number) =>
    `release ${from.version} wrote ${what} ${a}, release ${to.version} knows ${what} ${b} and would misread it: install ${from.version} or later, or restore a backup that ${to.version} made`;
  if (to.log < from.log) return say("log", from.log, to.log);
  return to.protocol < from.protocol ? say("protocol", from.protocol, to.protocol) : null;
}
