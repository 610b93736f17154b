import { z } from "zod";
import { CampaignSummary, Unreadable } from "./api.ts";
import { AgentInfo } from "./device.ts";
import { AgentId, ArtifactRef, Digest, Id, Instant } from "./ids.ts";
import { UserClaim } from "./join.ts";
import { message } from "./message.ts";

const Bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array, "must be bytes");

/** `vs.api.enroll`: make (or keep) an agent's user on the broker. conflict: the id belongs to another key. */
export const EnrollRequest = message("enroll", {
  agentId: AgentId,
  /** User NKey ("U…"). */
  publicKey: z.string().regex(/^U[A-Z2-7]{55}$/),
  pools: z.array(Id).min(1).max(8),
});
export type EnrollRequest = z.infer<typeof EnrollRequest>;

export const Enrolled = message("enrolled", {
  agentId: Id,
  servers: z.array(z.string()),
  /** PEM of the authority that the broker's certificate is verified against. Absent: no TLS, loopback only. */
  ca: z.string().optional(),
  /** The agent's claim on a NATS cluster, to be shown with its key. Absent: the broker needs none. */
  claim: UserClaim.optional(),
});
export type Enrolled = z.infer<typeof Enrolled>;

/** `vs.api.watch`: events of a campaign with seq > after, oldest first, as many as fit a message. Subscribe to `subject` before the first page. */
export const WatchRequest = message("watch", {
  campaign: Id.nullable(),
  after: z.int().min(0),
});

export const EventPage = message("events", {
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
export const ExportBundle = message("export", {
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
export const ArtifactRequest = message("artifact.request", {
  digest: Digest,
  offset: z.int().min(0),
});

export const ArtifactChunk = message("artifact", {
  digest: Digest,
  offset: z.int().min(0),
  totalBytes: z.int().min(0),
  data: Bytes,
});

/**
 * `vs.api.prune`: remove artifacts that no campaign which is not over refers to and that are older. conflict: a campaign can't be read, so that nobody knows what
 * it needs.
 */
export const PruneRequest = message("prune", {
  olderThanS: z.number().min(0),
  /** Only count. */
  dryRun: z.boolean(),
});
export type PruneRequest = z.infer<typeof PruneRequest>;

export const PruneReport = message("pruned", {
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
export const EmptyRequest = message("request", {});

/** Answer to `vs.api.status`. */
export const CoordinatorStatus = message("status", {
  pid: z.int(),
  startedAt: Instant,
  version: z.string(),
  /** That agents must speak, and of its logs. Absent: 1. */
  protocol: z.int().min(1).optional(),
  log: z.int().min(1).optional(),
  broker: z.strictObject({ pid: z.int(), version: z.string(), syncAlways: z.boolean(), storeDir: z.string() }),
  /** By id, the first of them where there are more than fit a message. */
  agents: z.array(AgentInfo),
  /** How many there are. Absent: as many as are listed. */
  registered: z.int().min(0).optional(),
  campaigns: z.array(CampaignSummary),
  unreadable: Unreadable,
});
export type CoordinatorStatus = z.infer<typeof CoordinatorStatus>;

/** `vs.api.agent-token`: a join line for one agent, or, for Kubernetes, for all that prove a service account. bad-input: service accounts are not set up. */
export const AgentTokenRequest = message("agent.token.request", {
  /** The pool it must work in; null: the one that it names after its hardware. */
  pool: Id.nullable(),
  /** Labels that a device of the agent must carry; then it is approved by itself. None: a person approves it. */
  labels: z.record(z.string(), z.string()),
  ttlMs: z
    .int()
    .min(1000)
    .max(30 * 24 * 3600 * 1000),
  kubernetes: z.boolean(),
});

/** expiresAt null: the line holds no token, only where the coordinator is and how to ask. */
export const AgentToken = message("agent.token", {
  line: z.string(),
  expiresAt: Instant.nullable(),
});
export type AgentToken = z.infer<typeof AgentToken>;

/** `vs.api.agents`: agents with an id after this one, by id; null: from the first on. */
export const AgentsRequest = message("agents.request", { after: Id.nullable() });

/** One agent that is in, asks to come in, or was put out (revoked; its key never comes back). */
export const AgentRow = z.strictObject({
  agentId: Id,
  publicKey: z.string(),
  /** away: enrolled, and not heard of. incompatible: of a release that this coordinator can't work with; the note says what to do. */
  state: z.enum(["ready", "draining", "away", "waiting", "revoked", "incompatible"]),
  pools: z.array(Id),
  /** Empty while it is not heard of. health: absent: nothing is known against it. */
  devices: z.array(
    z.strictObject({
      ...{ id: Id, name: z.string(), isa: z.string(), simulated: z.boolean() },
      health: z.strictObject({ health: z.enum(["good", "suspect", "quarantined"]), reason: z.string(), since: Instant }).optional(),
    }),
  ),
  version: z.string().nullable(),
  /** That it speaks. Absent: it is not heard of, or does not say (1). */
  protocol: z.int().min(1).optional(),
  /** Since when it is in this list as what it is: enrolled, waiting, revoked. Null: not recorded (enrolled by an older release). */
  since: Instant.nullable(),
  /** When its entry in the registry was last written; null: not since the coordinator started. */
  heardAt: Instant.nullable(),
  /** Why it waits, or was put out. */
  note: z.string().nullable(),
});
export type AgentRow = z.infer<typeof AgentRow>;

/** more: ask again, after the last of these. */
export const AgentsPage = message("agents", { agents: z.array(AgentRow), more: z.boolean() });
export type AgentsPage = z.infer<typeof AgentsPage>;

/** `vs.api.agent-decide`: not-found: no such agent; conflict: it is not in a state to be decided on so. Answered with its row as it stands now. */
export const AgentDecision = message("agent.decision", {
  agentId: Id,
  decision: z.enum(["approve", "refuse", "revoke"]),
  reason: z.string().max(500),
});

export const AgentDecided = message("agent.decided", {
  agentId: Id,
  decision: AgentDecision.shape.decision,
});

/** `vs.api.device-good`: a person says that a device, or every device of an agent, is good again. not-found: nothing is known against it. Answered with the same. */
export const DeviceGood = message("device.good", { id: Id, reason: z.string().min(1).max(300) });
