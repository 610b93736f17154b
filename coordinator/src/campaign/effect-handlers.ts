import type { CampaignFact, Job } from "@vibeserve/shared";
import type { Campaign } from "./campaign.machine.ts";
import type { Effect } from "./effect.ts";

/** What a handler may see and do while it runs one effect of one campaign. */
export interface EffectContext {
  campaign: Campaign;
  /** The state by now: an effect that takes long must look whether it is still wanted. */
  current: () => Campaign;
  /** Digest of what this campaign may draw on, fixed when it was created. */
  stackDigest: string;
  signal: AbortSignal;
  /** The job as it was requested, if this attempt already was. */
  requested: (jobId: string, attempt: number) => Job | null;
  /** Appends in the campaign's order; null: the campaign has ended meanwhile. */
  append: (fact: CampaignFact) => Promise<Campaign | null>;
  /** What the effect is waiting for, for people; null: no longer. */
  waits: (reason: string | null) => void;
}

/** No further try will help until a person has mended something: the campaign is paused with the reason at once. */
export class EffectBlocked extends Error {
  override readonly name = "EffectBlocked";
}

/** The campaign was paused while the effect was under way: it stops without a fact and runs again once the campaign goes on. */
export class EffectSuspended extends Error {
  constructor() {
    super("the campaign is paused");
    this.name = "EffectSuspended";
  }
}

/** The experiment can't be carried out, which says nothing of its idea. */
export const blocked = (experimentId: string, reason: string): Extract<CampaignFact, { type: "experiment.settled" }> => ({
  type: "experiment.settled",
  ...{ experimentId, outcome: "blocked", reason, ratio: null, checkpoint: "discard" },
});

type Handler<E extends Effect> = (effect: E, context: EffectContext) => Promise<CampaignFact | null>;

/**
 * One handler an effect. Returns the fact that is its outcome, or null if it has appended what there was to say. Must be idempotent: after a kill
 * it runs again. A throw means "try again later".
 */
export type EffectHandlers = { [E in Exclude<Effect, { type: "append" }> as E["type"]]: Handler<E> };

export async function runEffect(handlers: EffectHandlers, effect: Effect, context: EffectContext): Promise<CampaignFact | null> {
  if (effect.type === "append") return effect.fact;
  const handle = handlers[effect.type] as Handler<Effect>;
  return handle(effect, context);
}
