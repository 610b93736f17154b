import type { CampaignFact, TurnOutcome, TurnRole, TurnUsage } from "@vibeserve/shared";

type Requested = Extract<CampaignFact, { type: "turn.requested" }>;

/** One exchange with a model, as the log tells it. outcome null: asked, and not answered yet. */
export interface Turn {
  id: string;
  role: TurnRole;
  /** Begins with the kind of agent: "anthropic", "command:claude". */
  provider: string;
  model: string;
  /** Which turn of which conversation about an experiment; null for the planner's, which begins anew each time. */
  of: NonNullable<Requested["of"]> | null;
  reservedUsd: number;
  /** 0 in logs that do not say. */
  reservedTokens: number;
  outcome: TurnOutcome | null;
  usd: number;
}

/** Asking under an id that was used changes nothing. */
export function asked(turns: readonly Turn[], fact: Requested): readonly Turn[] {
  const { turnId: id, role, provider, model, reservedUsd, reservedTokens = 0, of = null } = fact;
  return turns.some((t) => t.id === id)
    ? turns
    : [...turns, { id, role, provider, model, of, reservedUsd, reservedTokens, outcome: null, usd: 0 }];
}

/** Only the first answer counts. */
export function answered(turns: readonly Turn[], fact: Extract<CampaignFact, { type: "turn.settled" }>): readonly Turn[] {
  return turns.map((t) => (t.id === fact.turnId && t.outcome === null ? { ...t, outcome: fact.outcome, usd: fact.usd } : t));
}

/** US dollars that are gone or promised: what was settled, and what is reserved for turns that are not. */
export const committedUsd = (turns: readonly Turn[]): number => turns.reduce((sum, t) => sum + (t.outcome ? t.usd : t.reservedUsd), 0);

/** Tokens likewise. */
export const committedTokens = (turns: readonly Turn[]): number =>
  turns.reduce((sum, t) => sum + (t.outcome?.usage ? tokensOf(t.outcome.usage) : isHeldBack(t) ? t.reservedTokens : 0), 0);

/** Turns that were or may have been billed: one that never reached its model is not among them, or an outage would use up a cap. */
export const committedTurns = (turns: readonly Turn[]): number => turns.filter((t) => t.outcome?.usage || isHeldBack(t)).length;

export const tokensOf = (u: TurnUsage): number => u.input + u.output + u.cacheRead + u.cacheWrite;

/** Under way, or broken off at a point where it may have been billed: it counts as what was reserved. */
function isHeldBack({ outcome }: Turn): boolean {
  return outcome === null || (outcome.status === "failed" && (outcome.code === "lost" || outcome.code === "cut-off"));
}
