import { z } from "zod";
import { AgentInfo, Device } from "./device.ts";
import { ArtifactRef, ChampionRef, Digest, Id, Instant, TreeHash } from "./ids.ts";
import { Failure, Job, JobResult, Provenance } from "./job.ts";
import { message } from "./message.ts";
import { Ratio } from "./measurement.ts";
import { Hypothesis, Resolution } from "./skill.ts";
import { AgentKind, CampaignOptions, Target } from "./target.ts";
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
  filedBy: z.enum(["playbook", "planner", "judge", "evaluator"]),
});
export type BacklogIssue = z.infer<typeof BacklogIssue>;

/** What an implementer says when it hands in its work, or gives it up. Words, never a number that counts (I1). */
export const Declaration = z.strictObject({
  declared: z.enum(["ready", "needs-debugging", "unsuitable"]),
  summary: z.string().max(2_000),
  /** Pointers into the tree ("path:line") and into job answers. */
  evidence: z.array(z.string().max(400)).max(12),
  /** Why the idea can't work; asked for with "unsuitable". */
  mechanism: z.string().max(2_000),
  nextStep: z.string().max(1_000),
});
export type Declaration = z.infer<typeof Declaration>;

/** A judge's verdict. It can veto what the mechanical checks passed, and can't bless what they refused. */
export const Review = z.strictObject({
  verdict: z.enum(["pass", "veto"]),
  reason: z.string().max(2_000),
  findings: z.array(z.strictObject({ path: z.string().max(200), line: z.int().min(0), claim: z.string().max(600) })).max(12),
});
export type Review = z.infer<typeof Review>;

/** What an accepted result counts as where the coordinator's evidence contradicts what its agent said. What the agent said stays in the result. */
export const Verdict = z.strictObject({
  attribution: Failure.shape.attribution,
  code: Id,
  /** Nothing is decided: the job is tried once on another device, whose verdict counts. */
  secondDevice: z.boolean(),
  why: z.string().max(1_000),
});
export type Verdict = z.infer<typeof Verdict>;

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
    /** Who writes its code: the skills' shipped bindings, or (when given) a model. */
    author: z.literal("model").optional(),
    /** Of a portfolio: the member that planned it, and whose models carry it out. */
    by: AgentKind.optional(),
    /** The champion of another campaign that is tried here: its skills put together anew, or in a trial its very tree. */
    portOf: ChampionRef.optional(),
  }),
  /** A member of a portfolio plans no more: it sees nothing that can pay, or can't be paid. The others go on. */
  z.strictObject({ type: z.literal("planner.stopped"), by: AgentKind, reason: z.string() }),
  z.strictObject({ type: z.literal("experiment.drafted"), experimentId: Id, git: Git, bindings: Bindings, provenance: Provenance }),
  /** What a tool call of an implementer works on: the tree as it stands there; argv only for `run`. problem: the call can't be carried out, and why. */
  z.strictObject({
    type: z.literal("call.prepared"),
    experimentId: Id,
    /** "t<turn>c<call>", both counted from 1. */
    call: Id,
    git: Git.nullable(),
    argv: z.array(z.string()).nullable(),
    problem: z.string().max(2_000).nullable(),
  }),
  /** The implementer handed in its work, or gave the idea up. `call`: where it said so. */
  z.strictObject({ type: z.literal("experiment.declared"), experimentId: Id, call: Id, declaration: Declaration }),
  /** What was handed in did not pass, for reasons of its own, and may be mended: the implementer's session goes on with the reason. */
  z.strictObject({ type: z.literal("experiment.returned"), experimentId: Id, reason: z.string() }),
  /** draft: which hand-in, from 1; of: the candidate, or the claim that the idea can't work. */
  z.strictObject({
    type: z.literal("review.recorded"),
    experimentId: Id,
    draft: z.int().min(1),
    of: z.enum(["candidate", "abandonment"]),
    review: Review,
  }),
  /** The performance evaluator's reading of measurement and profile. Words: no number of it counts (I1). */
  z.strictObject({
    type: z.literal("evaluation.recorded"),
    experimentId: Id,
    bottleneck: z.string().max(2_000),
    mechanism: z.enum(["ran", "did-not-run", "unclear"]),
    evidence: z.string().max(2_000),
  }),
  /** The planner sets an idea aside, or takes it up again; abandoning one takes a judge (experiment.settled). */
  z.strictObject({
    type: z.literal("backlog.edited"),
    issue: Id,
    strategy: z.enum(["available", "parked"]),
    reason: z.string(),
  }),
  z.strictObject({ type: z.literal("job.requested"), job: Job }),
  /** accepted: current attempt and token; everything else is evidence and changes nothing (I3). */
  z.strictObject({
    type: z.literal("job.settled"),
    result: JobResult,
    accepted: z.boolean(),
    why: z.string(),
    /** Absent: it counts as what its agent said. */
    verdict: Verdict.optional(),
  }),
  /**
   * Results of this agent that would change nothing came in such numbers that a log does not keep them: so many were thrown away so far, the last of them for this
   * job. Recorded at the first, and whenever their number has doubled.
   */
  z.strictObject({ type: z.literal("evidence.dropped"), agentId: Id, jobId: Id, dropped: z.int().min(1) }),
  /** No accepted result within the job's own deadline, or its agent is gone: the attempt is over; a late result is evidence. */
  z.strictObject({
    type: z.literal("job.expired"),
    jobId: Id,
    attempt: z.int().min(1),
    why: z.string(),
    /** Absent: the harness. */
    attribution: Failure.shape.attribution.exclude(["candidate"]).optional(),
  }),
  /** A device that gave accepted answers has come under suspicion: `jobs` are those that it answered since its last good canary (null: it had none). What still may be is measured again. */
  z.strictObject({
    type: z.literal("results.suspected"),
    deviceId: Id,
    since: Instant.nullable(),
    jobs: z.array(Id).min(1),
    why: z.string().max(500),
  }),
  /** The planner has no legal idea left that can pay, or the budget's search share is spent. The leader is crowned next. */
  z.strictObject({ type: z.literal("search.ended"), reason: z.string() }),
  z.strictObject({
    type: z.literal("experiment.settled"),
    experimentId: Id,
    outcome: Resolution,
    reason: z.string(),
    ratio: Ratio.nullable(),
    /** Use of the checkpoint: the next parent ("leader"), or nothing. */
    checkpoint: z.enum(["leader", "discard"]),
    /** What it says of the idea where that does not follow from the outcome; abandoned needs a mechanism that a second judge found sound. */
    strategy: z.enum(["parked", "abandoned"]).optional(),
  }),
  z.strictObject({
    type: z.literal("champion.crowned"),
    experimentId: Id,
    git: Git,
    bindings: Bindings,
    /** Against the champion before it, and the repeat on fresh seeds: both intervals exclude "no better" (I4). */
    ratio: Ratio,
    repeat: Ratio,
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
    /** The most tokens that it can take, in and out; absent in logs of versions that did not count them. */
    reservedTokens: z.int().min(0).optional(),
    /** A turn of a conversation about one experiment: the n-th from 1. draft: the hand-in that it is about, 0 for the implementer's own. */
    of: z.strictObject({ experimentId: Id, draft: z.int().min(0), n: z.int().min(1) }).optional(),
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
export const CampaignEvent = message("event", {
  campaign: Id,
  seq: z.int().min(1),
  at: Instant,
  prev: Digest,
  fact: CampaignFact,
});
export type CampaignEvent = z.infer<typeof CampaignEvent>;
