import { z } from "zod";
import { ChampionRef, Digest, Instant, TreeHash } from "./ids.ts";
import { ModelRef, Provenance } from "./job.ts";
import { Ratio } from "./measurement.ts";
import { message } from "./message.ts";
import { Target } from "./target.ts";

/** A champion as someone who serves it needs it: what it is, where its code lies, and why it is believed. */
export const Release = z.strictObject({
  champion: ChampionRef,
  target: z.string(),
  model: ModelRef,
  /** Device labels that the target asks for. */
  device: z.record(z.string(), z.string()),
  /** Devices that it serves on together. Absent: 1. */
  deviceCount: Target.shape.deviceCount,
  commit: z.string(),
  treeDigest: TreeHash,
  /** Of the campaign's repository, `<data>/git/<campaign>.git`. */
  branch: z.string(),
  provenance: Provenance,
  /** Against the champion (or seed) before it, twice, as it was crowned; the jobs that measured it. */
  evidence: z.strictObject({ ratio: Ratio, repeat: Ratio, jobs: z.array(z.string()), simulated: z.boolean() }),
});
export type Release = z.infer<typeof Release>;

export const Promotion = z.strictObject({
  action: z.enum(["promote", "rollback"]),
  release: Release,
  /** Folder that `vibeserve export --to` wrote; null: serve it from the repository. */
  exportedTo: z.string().nullable(),
  at: Instant,
  reason: z.string(),
  /** What spoke against it, where --force was given; null: nothing did. */
  overridden: z.string().nullable(),
});
export type Promotion = z.infer<typeof Promotion>;

/**
 * `<data>/channels/<name>.json`: what a serving platform is to serve. Replaced by rename, so a reader sees the old file or the new one; watch the folder, not the
 * file. current is the last of history; null: nothing was promoted.
 */
export const ChannelFile = message("channel", {
  name: z.string(),
  current: Promotion.nullable(),
  /** Oldest first, the last 100. */
  history: z.array(Promotion),
});
export type ChannelFile = z.infer<typeof ChannelFile>;

/** `export.json` of an exported stack. */
export const StackExport = message("stack.export", {
  release: Release,
  /** What was measured. */
  buildDigest: Digest,
  /** What lies in build/: made in the agent's sandbox from source/. Null: nothing was built, run build.sh. */
  build: z.strictObject({ buildDigest: Digest, cached: z.boolean(), sandbox: z.string(), compiler: z.string() }).nullable(),
  /** Every other file of the export. */
  files: z.array(z.strictObject({ path: z.string(), sha256: Digest, bytes: z.int() })),
});
export type StackExport = z.infer<typeof StackExport>;
