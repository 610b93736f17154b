import { join } from "node:path";
import type { CampaignFact, Target, TurnRole } from "@vibeserve/shared";
import { ApiProblem } from "../api/problem.ts";
import { timeOver } from "../campaign/planning.ts";
import type { Campaign } from "../campaign/campaign.machine.ts";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import type { Settings } from "../config.ts";
import { planWithModel, worstTurn, type PlanOf } from "./planner.ts";
import { Providers } from "./providers.ts";
import { recording } from "./record.ts";
import { priceFile, PricesError } from "./prices.ts";
import { loadRoles, type Roles } from "./roles.ts";
import { PAUSES_MS, type TurnDeps } from "./turns.ts";

/** What asks models for campaigns whose agent is one. */
export interface Models extends AsyncDisposable {
  readonly roles: Roles;
  /** Throws ApiProblem bad-input where this coordinator can't ask a model for the target: no key, no price, no money. */
  admit(target: Target): Promise<void>;
  model(target: Target, role: TurnRole): string;
  /** For conversations: only time and money end them. */
  turns(campaign: Campaign, current: () => Campaign): Promise<TurnDeps>;
  /** over: why nobody need be asked any more, as by now. */
  plan(effectId: string, context: EffectContext, of: PlanOf, over: () => string | null): Promise<CampaignFact>;
}

/**
 * Reads the roles' prompts at once, and throws where one is broken, whoever plans. Prices are read when a campaign needs them, so that a mended file counts at
 * once; a missing key is a matter of that campaign too.
 */
export function models(
  settings: Settings,
  now: () => number,
  put: TurnDeps["put"],
  onError: (error: unknown) => void,
  pausesMs: readonly number[] = PAUSES_MS,
): Models {
  const roles = loadRoles(settings.root);
  const prices = priceFile([join(settings.data, "prices.yaml"), join(import.meta.dirname, "..", "..", "prices.yaml")]);
  const model = (_target: Target, role: TurnRole): string => settings.anthropic.models[role] ?? settings.anthropic.model;
  const providers = new Providers(settings, prices, onError);
  const turnDeps = async (campaign: Campaign, over: () => string | null): Promise<TurnDeps> => {
    const { agent } = campaign.target;
    if (agent === "playbook") throw new TypeError(`campaign ${campaign.id}: the playbook asks no model`);
    const plain = await providers.get(agent);
    const kept = settings.record ? recording(plain, join(settings.data, "transcripts", campaign.id), now) : plain;
    return { provider: kept, prices: prices(), pausesMs, over, put };
  };
  return {
    roles,
    model,
    [Symbol.asyncDispose]: () => providers[Symbol.asyncDispose](),
    async admit(target) {
      const refuse = (message: string): never => {
        throw new ApiProblem("bad-input", `agent ${target.agent}: ${message}`);
      };
      if (target.agent === "playbook") return;
      const { agent } = target;
      const missing = await providers.missing(agent).catch((error: unknown) => (error instanceof Error ? error.message : String(error)));
      if (missing !== null) return refuse(missing);
      for (const role of ["planner", "implementer", "judge", "evaluator"] as const) {
        const name = model(target, role);
        let worst: ReturnType<typeof worstTurn>;
        try {
          worst = worstTurn(prices(), name);
        } catch (error) {
          if (error instanceof PricesError) return refuse(error.message);
          throw error;
        }
        if (worst === null) return refuse(`no price is known for model ${name}; add it to ${join(settings.data, "prices.yaml")}`);
        const { usd, tokens } = target.budget;
        if (role === "planner" && usd < worst.usd)
          refuse(`one turn of ${name} may cost $${worst.usd.toFixed(2)}, the budget is $${usd}; give budget.usd, or --usd`);
        if (role === "planner" && tokens !== undefined && tokens < worst.tokens)
          refuse(`one turn of ${name} may take ${worst.tokens} tokens, budget.tokens is ${tokens}`);
      }
    },
    turns: (campaign, current) => turnDeps(campaign, () => timeOver(current(), now())),
    async plan(effectId, context, of, over) {
      const { target } = context.campaign;
      return planWithModel(
        { ...(await turnDeps(context.campaign, over)), model: model(target, "planner"), role: roles.planner },
        effectId,
        context,
        of,
      );
    },
  };
}
