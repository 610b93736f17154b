import type { CampaignFact, Job } from "@vibeserve/shared";

/**
 * What a campaign wants to happen next, as data. `id` is deterministic: the actor runs an effect once per id and process life, and after a restart
 * runs again whatever is still pending; each is idempotent. Its outcome comes back as an event.
 */
export type Effect =
  /** Bind a ready agent and device that match the target's labels → device.bound. */
  | { type: "bind"; id: string }
  /** Ask the planner → backlog.filed, experiment.proposed or search.ended. */
  | { type: "plan"; id: string }
  /** Write the candidate's tree, commit it, upload its tar → experiment.drafted. */
  | { type: "draft"; id: string; experimentId: string }
  /** Append job.requested (unless it is there), then publish with msg-id `<id>.<attempt>`. */
  | { type: "dispatch"; id: string; job: Omit<Job, "issuedAt" | "pool"> }
  /** Create the champion's git branch → champion.crowned. */
  | { type: "crown"; id: string; fact: Extract<CampaignFact, { type: "champion.crowned" }> }
  /** A decision that needs nothing from outside: append it. */
  | { type: "append"; id: string; fact: CampaignFact };
