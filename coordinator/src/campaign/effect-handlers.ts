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
  constructor(message: string) {
    super(message);
    this.name = "EffectBlocked";
  }
}

/** The campaign was paused while the effect was under way: it stops without a fact and runs again once the campaign goes on. */
export class EffectSuspended extends Error {
  constructor() {
    super("the campaign is paused");
    this.name = "EffectSuspended";
  }
}

type Handler<T extends Effect["type"]> = (effect: Extract<Effect, { type: T }>, context: EffectContext) => Promise<CampaignFact | null>;

/**
 * One handler an effect. Returns the fact that is its outcome, or null if it has appended what there was to say. Must be idempotent: after a kill
 * it runs again. A throw means "try again later".
 */
export interface EffectHandlers {
  bind: Handler<"bind">;
  plan: Handler<"plan">;
  draft: Handler<"draft">;
  turn: Handler<"turn">;
  prepare: Handler<"prepare">;
  conclude: Handler<"conclude">;
  dispatch: Handler<"dispatch">;
  crown: Handler<"crown">;
}

export async function runEffect(handlers: EffectHandlers, effect: Effect, context: EffectContext): Promise<CampaignFact | null> {
  switch (effect.type) {
    case "bind":
      return handlers.bind(effect, context);
    case "plan":
      return handlers.plan(effect, context);
    case "draft":
      return handlers.draft(effect, context);
    case "turn":
      return handlers.turn(effect, context);
    case "prepare":
      return handlers.prepare(effect, context);
    case "conclude":
      return handlers.conclude(effect, context);
    case "dispatch":
      return handlers.dispatch(effect, context);
    case "crown":
      return handlers.crown(effect, context);
    case "append":
      return effect.fact;
  }
}
