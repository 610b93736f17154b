import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { CampaignFact, Target } from "@vibeserve/shared";
import { ApiProblem } from "../api/problem.ts";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import type { Settings } from "../config.ts";
import type { Observation } from "../playbook/estimate.ts";
import type { Catalog } from "../stack/catalog.ts";
import { planWithModel, worstTurn } from "./planner.ts";
import type { Proposed } from "./planner-prompt.ts";
import { loadPrices, PricesError } from "./prices.ts";
import { fill } from "./prompt.ts";
import { PAUSES_MS, type TurnDeps } from "./turns.ts";

/** The planner of campaigns whose agent is a model. */
export interface ModelPlanner {
  /** Throws ApiProblem bad-input where this coordinator can't plan for the target: no key, no price, no money. */
  admit(target: Target): void;
  plan(
    effectId: string,
    context: EffectContext,
    catalog: Catalog,
    proposed: Proposed,
    findings: readonly Observation[],
    over: () => string | null,
  ): Promise<CampaignFact>;
}

/**
 * Reads the role's prompt at once, and throws where it is broken, whoever plans. Prices are read when a campaign needs them, so that a mended file counts at
 * once; a missing key is a matter of that campaign too.
 */
export function modelPlanner(
  settings: Settings,
  now: () => number,
  put: TurnDeps["put"],
  pausesMs: readonly number[] = PAUSES_MS,
): ModelPlanner {
  const path = join(settings.root, "prompts", "roles", "planner.md");
  // A tiny installation of a test has no prompts; nor has it campaigns that need them.
  const role = existsSync(path) ? fill(path, readFileSync(path, "utf8"), {}) : "";
  const { model, apiKey, baseUrl } = settings.anthropic;
  const prices = () => loadPrices([join(settings.data, "prices.yaml"), join(import.meta.dirname, "..", "..", "prices.yaml")]);
  return {
    admit(target) {
      const refuse = (message: string): never => {
        throw new ApiProblem("bad-input", `agent ${target.agent}: ${message}`);
      };
      if (target.agent !== "anthropic") return;
      if (apiKey === null)
        return refuse("ANTHROPIC_API_KEY is not set where the coordinator runs; set it there, or plan without a model: --agent playbook");
      let worst: ReturnType<typeof worstTurn>;
      try {
        worst = worstTurn(prices(), model);
      } catch (error) {
        if (error instanceof PricesError) return refuse(error.message);
        throw error;
      }
      if (worst === null) return refuse(`no price is known for model ${model}; add it to ${join(settings.data, "prices.yaml")}`);
      const { usd, tokens } = target.budget;
      if (usd < worst.usd)
        refuse(`one turn of ${model} may cost $${worst.usd.toFixed(2)}, the budget is $${usd}; give budget.usd, or --usd`);
      if (tokens !== undefined && tokens < worst.tokens)
        refuse(`one turn of ${model} may take ${worst.tokens} tokens, budget.tokens is ${tokens}`);
    },
    async plan(effectId, context, catalog, proposed, findings, over) {
      // Here and not above: the client takes 30 MB, and most coordinators never ask a model.
      const { anthropic } = await import("./anthropic.ts");
      const provider = anthropic({ apiKey: apiKey ?? "", baseUrl });
      return planWithModel(
        { provider, prices: prices(), pausesMs, over, put, model, role, now },
        effectId,
        context,
        catalog,
        proposed,
        findings,
      );
    },
  };
}
