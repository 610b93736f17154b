import { z } from "zod";
import { AgentInfo, Device } from "./device.ts";
import { ArtifactRef, Digest, Id, Instant, TreeHash } from "./ids.ts";
import { Job, JobResult, Provenance } from "./job.ts";
import { Hypothesis, Resolution } from "./skill.ts";
import { CampaignOptions, Target } from "./target.ts";
import { TurnOutcome, TurnRole } from "./turn.ts";

export const Git = z.strictObject({ commit: z.string().regex(/^[0-9a-f]{40,64}$/), treeDigest: TreeHash, tree: ArtifactRef });
export type Git = z.infer<typeof Git>;
/** Seam → path of the file that binds it, such as { linear: "bindings/linear/q4-int8.cpp" }. */
export const Bindings = z.record(z.string(), z.string());
export type Bindings = z.infer<typeof Bindings>;

/** An idea before it is tried. `expected` is challenger over leader as the planner believes when it files the issue, in the objective's metric. */
export const BacklogIssue = z.strictObject({
  id: Id,
  title: z.string().min(1),
  mechanism: z.string().min(1),
  skills: z.array(Id),
  expected: z.number().positive(),
  filedBy: z.enum(["playbook"]),
});
export type BacklogIssue = z.infer<typeof BacklogIssue>;

/**
 * Facts of one campaign, in the order in which they became true. Append-only; everything a campaign knows is a fold over these (I5).
 * Names are past tense. No clock, id or random number is read by the reducer: they arrive in here.
 */
export const CampaignFact = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("campaign.created"),
    target: Target,
    workloadDigest: Digest,
    /** sha256 of everything the search may draw on: seed, bindings, skills. */
    stackDigest: Digest,
    options: CampaignOptions,
  }),
  z.strictObject({ type: z.literal("campaign.paused"), reason: z.string() }),
  z.strictObject({ type: z.literal("campaign.resumed"), reason: z.string() }),
  z.strictObject({
    type: z.literal("campaign.ended"),
    outcome: z.enum(["proven", "not-proven", "cancelled", "failed"]),
    reason: z.string(),
  }),
  /** The agent and device that the campaign measures on. */
  z.strictObject({ type: z.literal("device.bound"), agent: AgentInfo, device: Device }),
  z.strictObject({ type: z.literal("backlog.filed"), issues: z.array(BacklogIssue).min(1) }),
  z.strictObject({
    type: z.literal("experiment.proposed"),
    experimentId: Id,
    /** The issues that it carries out: one, or several that were proved before and go in together. */
    issues: z.array(Id).min(1),
    hypothesis: Hypothesis,
    /** Why this one, now: the planner's estimate for each candidate it weighed, best first. */
    weighed: z.array(z.strictObject({ skill: z.string(), estimate: z.number(), why: z.string() })),
  }),
  z.strictObject({ type: z.literal("experiment.drafted"), experimentId: Id, git: Git, bindings: Bindings, provenance: Provenance }),
  z.strictObject({ type: z.literal("job.requested"), job: Job }),
  /** accepted: current attempt and token; everything else is evidence and changes nothing (I3). */
  z.strictObject({ type: z.literal("job.settled"), result: JobResult, accepted: z.boolean(), why: z.string() }),
  /** No accepted result within the job's own deadline, or its agent is gone: the attempt is over; a late result is evidence. */
  z.strictObject({ type: z.literal("job.expired"), jobId: Id, attempt: z.int().min(1), why: z.string() }),
  /** The planner has no legal idea left that can pay, or the budget's search share is spent. The leader is crowned next. */
  z.strictObject({ type: z.literal("search.ended"), reason: z.string() }),
  z.strictObject({
    type: z.literal("experiment.settled"),
    experimentId: Id,
    outcome: Resolution,
    reason: z.string(),
    ratio: z.strictObject({ point: z.number(), lo: z.number(), hi: z.number(), pairs: z.int() }).nullable(),
    /** Use of the checkpoint: the next parent ("leader"), or nothing. */
    checkpoint: z.enum(["leader", "discard"]),
  }),
  z.strictObject({
    type: z.literal("champion.crowned"),
    experimentId: Id,
    git: Git,
    bindings: Bindings,
    /** Against the champion before it, and the repeat on fresh seeds: both intervals exclude "no better" (I4). */
    ratio: z.strictObject({ point: z.number(), lo: z.number(), hi: z.number(), pairs: z.int() }),
    repeat: z.strictObject({ point: z.number(), lo: z.number(), hi: z.number(), pairs: z.int() }),
    branch: z.string(),
  }),
  /** Money is reserved before it is spent (I6): the worst that this turn can cost, in US dollars. */
  z.strictObject({
    type: z.literal("turn.requested"),
    turnId: z.string().min(1).max(120),
    role: TurnRole,
    provider: z.string(),
    model: z.string(),
    /** sha256 of everything that was sent. */
    promptDigest: Digest,
    reservedUsd: z.number().min(0),
  }),
  z.strictObject({ type: z.literal("turn.settled"), turnId: z.string(), outcome: TurnOutcome, usd: z.number().min(0) }),
  /** A campaign may only record; it never ranks with this. */
  z.strictObject({ type: z.literal("note.recorded"), topic: z.string(), text: z.string() }),
]);
export type CampaignFact = z.infer<typeof CampaignFact>;

/**
 * Subject `vs.event.<campaign>`, stream VS_EVENTS; appended with the expected last sequence of that subject, so there is one owner.
 * prev: sha256 of the encoded event before it (64 zeros for the first). seq: 1, 2, 3 … within the campaign.
 */
export const CampaignEvent = z.strictObject({
  v: z.literal(1),
  kind: z.literal("event"),
  campaign: Id,
  seq: z.int().min(1),
  at: Instant,
  prev: Digest,
  fact: CampaignFact,
});
export type CampaignEvent = z.infer<typeof CampaignEvent>;
