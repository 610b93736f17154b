import { issuesOf, type CampaignFact, type Hypothesis } from "@vibeserve/shared";
import { z } from "zod";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import { leader } from "../campaign/campaign.machine.ts";
import type { Observation } from "../playbook/estimate.ts";
import { hypothesise, issueId } from "../playbook/plan.ts";
import type { Catalog } from "../stack/catalog.ts";
import { plannerPrompt, PLANNER_BYTES, type Proposed } from "./planner-prompt.ts";
import { worstUsd, type Prices } from "./prices.ts";
import { plain } from "./prompt.ts";
import { assistant, user, type Message } from "./conversation.ts";
import { takeTurn, type TurnDeps } from "./turns.ts";

export interface PlannerDeps extends TurnDeps {
  model: string;
  /** prompts/roles/planner.md. */
  role: string;
  now: () => number;
}

/** Bound on the schema with its options, and on what a second try adds. */
const SCHEMA_BYTES = 8_000;

/** The most that one turn of a planner can take; null: no price is known. */
export function worstTurn(prices: Prices, model: string): { usd: number; tokens: number } | null {
  const price = prices.models[model];
  const bytes = PLANNER_BYTES + SCHEMA_BYTES;
  return price ? { usd: worstUsd(price, bytes, MAX_TOKENS), tokens: bytes + MAX_TOKENS } : null;
}

/** Reasoning included; a decision itself has 200 tokens. */
const MAX_TOKENS = 4_000;
/** A reply in the wrong shape is shown to the model once; a second ends the search. */
const SHAPES = 2;
/** What of a reply in the wrong shape is shown again. */
const REPLY_BYTES = 1_000;

/**
 * The outer loop with a model: of what the playbook finds legal now, the model chooses what is tried next, or ends the search. What is legal, what a
 * result means and what is crowned stays pure code; budgets of time and experiments end the search before anyone is asked.
 */
export async function planWithModel(
  deps: PlannerDeps,
  effectId: string,
  context: EffectContext,
  catalog: Catalog,
  proposed: Proposed,
  findings: readonly Observation[],
): Promise<CampaignFact> {
  const { campaign } = context;
  const Decision = decisionSchema(proposed.weighed.map((w) => w.skill));
  const prompt = plannerPrompt(campaign, catalog, proposed, findings, deps.now(), PLANNER_BYTES - Buffer.byteLength(deps.role));
  const messages: Message[] = [user(prompt)];
  for (let shape = 1; ; shape++) {
    const request = {
      model: deps.model,
      maxTokens: MAX_TOKENS,
      system: deps.role,
      messages,
      reply: { kind: "schema" as const, schema: z.toJSONSchema(Decision) },
    };
    const taken = await takeTurn(deps, context, `${effectId}.${shape}`, "planner", request);
    if (taken.kind === "over") return { type: "search.ended", reason: taken.reason };
    const decision = parseReply(Decision, taken.reply);
    if (decision.ok) return factOf(decision.value, catalog, proposed, campaign.target.objective, leader(campaign));
    // Not a pause: the same answers would be taken from the log again. What was proved so far is crowned.
    if (shape >= SHAPES)
      return { type: "search.ended", reason: `the planner's reply (${deps.model}) has the wrong shape: ${sentence(decision.why, "")}` };
    messages.push(
      assistant(taken.reply.slice(0, REPLY_BYTES) || "(nothing)"),
      user(`That does not follow the schema: ${sentence(decision.why, "")}`),
    );
  }
}

/** Only what is legal can be said: the options are an enum. */
const decisionSchema = (options: readonly string[]) =>
  z.strictObject({
    action: z.enum(["try", "stop"]),
    skill: z.enum(["", ...options]),
    expectedRatio: z.number(),
    claim: z.string(),
    falsification: z.string(),
    reason: z.string(),
  });
type Decision = z.infer<ReturnType<typeof decisionSchema>>;

function parseReply(schema: ReturnType<typeof decisionSchema>, reply: string): { ok: true; value: Decision } | { ok: false; why: string } {
  let raw: unknown;
  try {
    raw = JSON.parse(reply);
  } catch (error) {
    return { ok: false, why: `not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
  const parsed = schema.safeParse(raw);
  if (!parsed.success) return { ok: false, why: issuesOf(parsed.error) };
  const { action, skill, expectedRatio } = parsed.data;
  if (action === "try" && skill === "") return { ok: false, why: 'skill: "try" needs one of the options' };
  if (!(expectedRatio > 0 && expectedRatio < 1_000))
    return { ok: false, why: `expectedRatio: ${expectedRatio} is not a ratio between 0 and 1000` };
  return { ok: true, value: parsed.data };
}

/** What is kept of a sentence of the model's. */
const SENTENCE = 400;
const sentence = (text: string, otherwise: string): string => plain(text).slice(0, SENTENCE) || otherwise;

function factOf(
  d: Decision,
  catalog: Catalog,
  proposed: Proposed,
  metric: Parameters<typeof hypothesise>[2]["metric"],
  on: string,
): CampaignFact {
  if (d.action === "stop") return { type: "search.ended", reason: `the planner: ${sentence(d.reason, "no reason given")}` };
  const skill = catalog.skills.get(d.skill)?.skill;
  if (!skill) throw new Error(`${d.skill} was an option and is no skill`);
  const base = hypothesise(skill, d.expectedRatio, { metric, leader: on });
  const hypothesis: Hypothesis = {
    ...base,
    claim: sentence(d.claim, base.claim),
    falsification: sentence(d.falsification, base.falsification),
  };
  return { ...proposed, issues: [issueId(d.skill)], hypothesis };
}
