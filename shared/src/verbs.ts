import { z } from "zod";
import { CampaignSummary, Unreadable } from "./api.ts";
import { AgentInfo } from "./device.ts";
import { ArtifactRef, Digest, Id, Instant } from "./ids.ts";

const Bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array, "must be bytes");

/** `vs.api.enroll`: make (or keep) an agent's user on the broker. conflict: the id belongs to another key. */
export const EnrollRequest = z.strictObject({
  v: z.literal(1),
  kind: z.literal("enroll"),
  agentId: Id,
  /** User NKey ("U…"). */
  publicKey: z.string().regex(/^U[A-Z2-7]{55}$/),
  pools: z.array(Id).min(1).max(8),
});
export type EnrollRequest = z.infer<typeof EnrollRequest>;

export const Enrolled = z.strictObject({ v: z.literal(1), kind: z.literal("enrolled"), agentId: Id, servers: z.array(z.string()) });
export type Enrolled = z.infer<typeof Enrolled>;

/** `vs.api.watch`: events of a campaign with seq > after, oldest first, as many as fit a message. Subscribe to `subject` before the first page. */
export const WatchRequest = z.strictObject({
  v: z.literal(1),
  kind: z.literal("watch"),
  campaign: Id.nullable(),
  after: z.int().min(0),
});
export type WatchRequest = z.infer<typeof WatchRequest>;

export const EventPage = z.strictObject({
  v: z.literal(1),
  kind: z.literal("events"),
  campaign: Id,
  /** Where further events are published as they are appended. */
  subject: z.string(),
  /** Encoded CampaignEvents, byte for byte as stored, so that the reader can check the chain. */
  events: z.array(Bytes),
  /** More events exist after the last of these: ask again. */
  more: z.boolean(),
  summary: CampaignSummary,
});
export type EventPage = z.infer<typeof EventPage>;

/** Answer to `vs.api.export`: everything of one campaign, by reference. */
export const ExportBundle = z.strictObject({
  v: z.literal(1),
  kind: z.literal("export"),
  campaign: Id,
  /** JSON lines, one CampaignEvent each. */
  events: ArtifactRef,
  /** `git clone <file>` reads it. Null while nothing was drafted. */
  git: ArtifactRef.nullable(),
  /** A report.json that says how the campaign stands now. */
  report: ArtifactRef,
});
export type ExportBundle = z.infer<typeof ExportBundle>;

/** `vs.api.artifact`: bytes of an artifact from `offset`, at most 192 KiB a reply. not-found: no such digest. */
export const ArtifactRequest = z.strictObject({
  v: z.literal(1),
  kind: z.literal("artifact.request"),
  digest: Digest,
  offset: z.int().min(0),
});
export type ArtifactRequest = z.infer<typeof ArtifactRequest>;

export const ArtifactChunk = z.strictObject({
  v: z.literal(1),
  kind: z.literal("artifact"),
  digest: Digest,
  offset: z.int().min(0),
  totalBytes: z.int().min(0),
  data: Bytes,
});
export type ArtifactChunk = z.infer<typeof ArtifactChunk>;

/**
 * `vs.api.prune`: remove artifacts that no campaign which is not over refers to and that are older. conflict: a campaign can't be read, so that nobody knows what
 * it needs.
 */
export const PruneRequest = z.strictObject({
  v: z.literal(1),
  kind: z.literal("prune"),
  olderThanS: z.number().min(0),
  /** Only count. */
  dryRun: z.boolean(),
});
export type PruneRequest = z.infer<typeof PruneRequest>;

export const PruneReport = z.strictObject({
  v: z.literal(1),
  kind: z.literal("pruned"),
  dryRun: z.boolean(),
  removed: z.int().min(0),
  /** Of those that were removed. */
  bytes: z.int().min(0),
  kept: z.int().min(0),
  /** Transfers that were given up long ago. */
  unfinished: z.int().min(0),
  /** It took long enough: ask again for the rest. */
  more: z.boolean(),
});
export type PruneReport = z.infer<typeof PruneReport>;

/** Request of verbs without arguments: `campaigns` and `status`. */
export const EmptyRequest = z.strictObject({ v: z.literal(1), kind: z.literal("request") });

/** Answer to `vs.api.status`. */
export const CoordinatorStatus = z.strictObject({
  v: z.literal(1),
  kind: z.literal("status"),
  pid: z.int(),
  startedAt: Instant,
  version: z.string(),
  broker: z.strictObject({ pid: z.int(), version: z.string(), syncAlways: z.boolean(), storeDir: z.string() }),
  agents: z.array(AgentInfo),
  campaigns: z.array(CampaignSummary),
  unreadable: Unreadable,
});
export type CoordinatorStatus = z.infer<typeof CoordinatorStatus>;
