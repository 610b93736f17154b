import { z } from "zod";
import { Id, Instant } from "./ids.ts";
import { UserClaim } from "./join.ts";
import { message } from "./message.ts";
import { CampaignOptions, Target } from "./target.ts";

/**
 * Verbs are NATS requests on `vs.api.<verb>`, answered by the coordinator with an ApiReply. Codes: bad-input (exit 2), not-found (exit 2),
 * conflict (exit 1), internal (exit 1). No answer: unreachable (exit 3).
 */
export const ApiError = message("error", {
  code: z.enum(["bad-input", "not-found", "conflict", "internal"]),
  message: z.string(),
});
export type ApiError = z.infer<typeof ApiError>;

export const SubmitRequest = message("submit", {
  target: Target,
  options: CampaignOptions,
});
export type SubmitRequest = z.infer<typeof SubmitRequest>;

/** For pause, resume, cancel, watch and export: which campaign; null is the newest. */
export const CampaignRequest = message("campaign.request", { campaign: Id.nullable() });
export type CampaignRequest = z.infer<typeof CampaignRequest>;

export const CampaignState = z.enum(["waiting", "running", "paused", "ended"]);

/** One line of `vibeserve campaigns`; also the answer to submit, pause, resume and cancel. */
export const CampaignSummary = message("campaign", {
  campaign: Id,
  target: z.string(),
  state: CampaignState,
  /** Why it is in this state; names what it waits for. */
  reason: z.string(),
  outcome: z.string().nullable(),
  experiments: z.int(),
  champion: z.string().nullable(),
  startedAt: Instant,
  elapsedS: z.number(),
  budgetS: z.number(),
});
export type CampaignSummary = z.infer<typeof CampaignSummary>;

/** Campaigns whose log can't be read or trusted, with the reason: they are never run. */
export const Unreadable = z.array(z.strictObject({ campaign: z.string(), reason: z.string() }));

export const CampaignList = message("campaigns", {
  campaigns: z.array(CampaignSummary),
  unreadable: Unreadable,
});
export type CampaignList = z.infer<typeof CampaignList>;

/** `<data>/client.json`: how a verb finds its coordinator. Mode 0600. */
export const ClientContext = message("client", {
  servers: z.array(z.string()),
  /** NKey seed of the client role. */
  seed: z.string(),
  /** The client's claim on a NATS cluster. Absent: the broker needs none. */
  claim: UserClaim.optional(),
  /** PEM of the authority that the broker's certificate is verified against. Absent: no TLS, loopback only. */
  ca: z.string().optional(),
  pid: z.int(),
  startedAt: Instant,
});
export type ClientContext = z.infer<typeof ClientContext>;
