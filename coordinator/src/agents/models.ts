import { join } from "node:path";
import { TurnRole, type AgentKind, type CampaignFact, type Target } from "@vibeserve/shared";
import { ApiProblem } from "../api/problem.ts";
import { fleetCapReached } from "../campaign/caps.ts";
import { timeOver } from "../campaign/planning.ts";
import type { Campaign } from "../campaign/campaign.machine.ts";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import type { Settings } from "../config.ts";
import { planWithModel, worstTurn, type PlanOf } from "./planner.ts";
import { Providers } from "./providers.ts";
import { recording } from "./record.ts";
import { costUsd, priceFile, PricesError } from "./prices.ts";
import { loadRoles, type Roles } from "./roles.ts";
import { PAUSES_MS, type TurnDeps } from "./turns.ts";

export interface ModelsDeps {
  settings: Settings;
  now: () => number;
  put: TurnDeps["put"];
  /** Dollars that are gone or promised in all campaigns. */
  committedUsd: () => number;
  /** Faults of ours around a coding CLI. */
  onError: (error: unknown) => void;
  /** Tests shorten them. */
  pausesMs?: readonly number[] | undefined;
}

/** What asks models for campaigns whose agent is one. */
export interface Models extends AsyncDisposable {
  readonly roles: Roles;
  /** Throws ApiProblem bad-input where this coordinator can't ask a model for the target: no key, no price, no money. */
  admit(target: Target): Promise<void>;
  /** Why the budget may not carry even one experiment, with the estimate; null: it may. */
  warning(target: Target): string | null;
  model(agent: AgentKind, role: TurnRole): string;
  /** For conversations: only time and money end them. */
  turns(campaign: Campaign, agent: AgentKind, current: () => Campaign): Promise<TurnDeps>;
  /** over: why nobody need be asked any more, as by now. */
  plan(effectId: string, context: EffectContext, agent: AgentKind, of: PlanOf, over: () => string | null): Promise<CampaignFact>;
}

/** Tokens of one experiment with all four roles: the dearest of the recorded campaign (test/fixtures/transcripts/cpu-chat), by `vibeserve cost`. */
const EXPERIMENT = { input: 400, output: 11_000, cacheRead: 65_000, cacheWrite: 69_000 };

/**
 * Reads the roles' prompts at once, and throws where one is broken, whoever plans. Prices are read when a campaign needs them, so that a mended file counts at
 * once; a missing key is a matter of that campaign too.
 */
export function models(deps: ModelsDeps): Models {
  const { settings, now, put, pausesMs = PAUSES_MS } = deps;
  const roles = loadRoles(settings.root);
  const prices = priceFile([join(settings.data, "prices.yaml"), join(import.meta.dirname, "..", "..", "prices.yaml")]);
  const model = (agent: AgentKind, role: TurnRole): string => {
    const { model: common, models: own } = settings.anthropic;
    const ofAgent = { "openai-compatible": settings.openai.model, command: settings.cliModel, anthropic: null, playbook: null }[agent];
    return own[role] ?? ofAgent ?? common;
  };
  const providers = new Providers({ settings, prices, onError: deps.onError });
  const turnDeps = async (campaign: Campaign, agent: AgentKind, over: () => string | null): Promise<TurnDeps> => {
    if (agent === "playbook") throw new TypeError(`campaign ${campaign.id}: the playbook asks no model`);
    const plain = await providers.get(agent);
    const kept = settings.record ? recording(plain, join(settings.data, "transcripts", campaign.id), now) : plain;
    const fleetCap = (usd: number) => fleetCapReached(settings.usd, deps.committedUsd(), usd);
    return { provider: kept, prices: prices(), pausesMs, over, put, fleetCap };
  };
  return {
    roles,
    model,
    [Symbol.asyncDispose]: () => providers[Symbol.asyncDispose](),
    async admit(target) {
      for (const agent of kinds(target)) {
        const refuse = (message: string): never => {
          throw new ApiProblem("bad-input", `agent ${agent}: ${message}`);
        };
        const missing = await providers.missing(agent).catch((error: unknown) => (error instanceof Error ? error.message : String(error)));
        if (missing !== null) return refuse(missing);
        const named = TurnRole.options.flatMap((role) =>
          model(agent, role)
            .split(",")
            .map((name) => ({ role, name })),
        );
        for (const { role, name } of named) {
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
      }
    },
    warning(target) {
      const all = kinds(target).flatMap((agent) => {
        const name = model(agent, "implementer").split(",")[0] ?? "";
        const price = prices().models[name];
        return price ? [{ name, usd: costUsd(price, EXPERIMENT) }] : [];
      });
      const dear = all.find(({ usd }) => target.budget.usd < usd);
      return dear
        ? `$${target.budget.usd} may not carry one experiment that a model writes: about $${dear.usd.toFixed(2)} at the prices of ${dear.name}`
        : null;
    },
    turns: (campaign, agent, current) => turnDeps(campaign, agent, () => timeOver(current(), now())),
    async plan(effectId, context, agent, of, over) {
      const deps = await turnDeps(context.campaign, agent, over);
      return planWithModel({ ...deps, model: model(agent, "planner"), role: roles.planner }, effectId, context, of);
    },
  };
}

/** The models behind a target's agent. */
function kinds({ agent, portfolio = [] }: Target): Exclude<AgentKind, "playbook">[] {
  const all = agent === "portfolio" ? portfolio : [agent];
  return all.filter((kind) => kind !== "playbook");
}
