import type { CampaignFact, Job } from "@vibeserve/shared";
import type { CallAt, SessionRole } from "./session.ts";

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
  /** Ask a model for the n-th turn of a conversation about an experiment → turn.requested, turn.settled; or search.ended where the money is at its end. */
  | { type: "turn"; id: string; experimentId: string; role: SessionRole; draft: number; n: number }
  /** Commit the tree as it stands at a tool's call, upload its tar → call.prepared. */
  | { type: "prepare"; id: string; experimentId: string; call: CallAt }
  /** Read how a conversation ended → experiment.declared, review.recorded or evaluation.recorded; call.prepared with a problem where it has the wrong shape. */
  | { type: "conclude"; id: string; experimentId: string; call: CallAt }
  /** Append job.requested (unless it is there), then offer it to the scheduler. */
  | { type: "dispatch"; id: string; job: Omit<Job, "issuedAt" | "pool"> }
  /** Create the champion's git branch → champion.crowned. */
  | { type: "crown"; id: string; fact: Extract<CampaignFact, { type: "champion.crowned" }> }
  /** A decision that needs nothing from outside: append it. */
  | { type: "append"; id: string; fact: CampaignFact };
