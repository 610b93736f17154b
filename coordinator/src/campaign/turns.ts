import type { CampaignFact, TurnOutcome, TurnRole } from "@vibeserve/shared";

type Requested = Extract<CampaignFact, { type: "turn.requested" }>;

/** One exchange with a model, as the log tells it. outcome null: asked, and not answered yet. */
export interface Turn {
  id: string;
  role: TurnRole;
  model: string;
  /** Which turn of which conversation about an experiment; null for the planner's, which begins anew each time. */
  of: NonNullable<Requested["of"]> | null;
  reservedUsd: number;
  outcome: TurnOutcome | null;
  usd: number;
}

/** Asking under an id that was used changes nothing. */
export function asked(turns: readonly Turn[], fact: Requested): readonly Turn[] {
  const { turnId: id, role, model, reservedUsd, of = null } = fact;
  return turns.some((t) => t.id === id) ? turns : [...turns, { id, role, model, of, reservedUsd, outcome: null, usd: 0 }];
}

/** Only the first answer counts. */
export function answered(turns: readonly Turn[], fact: Extract<CampaignFact, { type: "turn.settled" }>): readonly Turn[] {
  return turns.map((t) => (t.id === fact.turnId && t.outcome === null ? { ...t, outcome: fact.outcome, usd: fact.usd } : t));
}

/** US dollars that are gone or promised: what was settled, and what is reserved for turns that are not. */
export const committedUsd = (turns: readonly Turn[]): number => turns.reduce((sum, t) => sum + (t.outcome ? t.usd : t.reservedUsd), 0);
