import type { BacklogIssue, CampaignFact, Hypothesis } from "@vibeserve/shared";
import { z } from "zod";
import type { EffectContext } from "../campaign/effect-handlers.ts";
import { leader, type Campaign } from "../campaign/campaign.machine.ts";
import type { Observation } from "../playbook/estimate.ts";
import { hypothesise, INVARIANTS, issueId, PASS_CRITERIA, type Weighed } from "../playbook/plan.ts";
import type { Catalog } from "../stack/catalog.ts";
import { admits, scopeOf } from "../stack/skill-scope.ts";
import { assistant, user, type Message } from "./conversation.ts";
import { decisionSchema, parseDecision, type Choices, type Decision } from "./decision.ts";
import { plannerPrompt, PLANNER_BYTES } from "./planner-prompt.ts";
import { priceOf, worstUsd, type Prices } from "./prices.ts";
import { clipped, plain } from "./prompt.ts";
import { takeTurn, type TurnDeps } from "./turns.ts";

export interface PlannerDeps extends TurnDeps {
  model: string;
  /** prompts/roles/planner.md. */
  role: string;
}

/** What the planner is asked about. */
export interface PlanOf {
  catalog: Catalog;
  /** What the playbook finds legal, best first. */
  options: readonly Weighed[];
  findings: readonly Observation[];
  /** Proven and abandoned ideas of earlier campaigns, a line each. */
  lessons: readonly string[];
}

/** Bound on the schema with its options, and on what a second try adds. */
const SCHEMA_BYTES = 12_000;

/** The most that one turn of a planner can take; null: no price is known. */
export function worstTurn(prices: Prices, model: string): { usd: number; tokens: number } | null {
  const price = priceOf(prices, model);
  const bytes = PLANNER_BYTES + SCHEMA_BYTES;
  return price ? { usd: worstUsd(price, bytes, MAX_TOKENS), tokens: bytes + MAX_TOKENS } : null;
}

/** Reasoning included; a decision itself has 500 tokens. */
const MAX_TOKENS = 4_000;
/** A reply in the wrong shape is shown to the model once; a second ends the search. */
const SHAPES = 2;
/** What of a reply in the wrong shape is shown again. */
const REPLY_BYTES = 1_000;
/** Issues and parents that a decision may name: the newest. */
const ISSUES = 40;
const PARENTS = 8;

/**
 * The outer loop with a model: among what is legal now it chooses what is tried next, a shipped binding or code that an implementer is to write, edits the
 * backlog, or ends the search. What is legal, what a result means and what is crowned stays pure code; budgets end the search before anyone is asked.
 */
export async function planWithModel(deps: PlannerDeps, effectId: string, context: EffectContext, of: PlanOf): Promise<CampaignFact> {
  const { campaign } = context;
  const choices = choicesOf(campaign, of);
  const prompt = plannerPrompt(campaign, of, PLANNER_BYTES - Buffer.byteLength(deps.role));
  const messages: Message[] = [user(prompt)];
  const reply = { kind: "schema" as const, schema: z.toJSONSchema(decisionSchema(choices)) };
  for (let shape = 1; ; shape++) {
    const request = { model: deps.model, maxTokens: MAX_TOKENS, system: deps.role, messages, reply };
    const taken = await takeTurn(deps, context, `${effectId}.${shape}`, "planner", request);
    if (taken.kind !== "answered") return { type: "search.ended", reason: taken.reason };
    const decision = parseDecision(choices, taken.reply);
    if (decision.ok) return carriedOut(decision.value, context, of);
    // Not a pause: the same answers would be taken from the log again. What was proved so far is crowned.
    if (shape >= SHAPES)
      return { type: "search.ended", reason: `the planner's reply (${deps.model}) has the wrong shape: ${sentence(decision.why, "")}` };
    messages.push(
      assistant(taken.reply.slice(0, REPLY_BYTES) || "(nothing)"),
      user(`That does not follow the schema: ${sentence(decision.why, "")}`),
    );
  }
}

function choicesOf(c: Campaign, { catalog, options }: PlanOf): Choices {
  const scope = scopeOf(c.target, c.device);
  // What this very decision filed before a kill was not among its choices.
  const own = `planner-e${c.experiments.length + 1}`;
  const open = c.backlog.filter((i) => ["available", "parked"].includes(i.strategy) && i.id !== own && !i.id.startsWith(`${own}-`));
  return {
    options,
    // A skill's own issue is tried by `try`.
    issues: open
      .filter((i) => i.filedBy !== "playbook")
      .map((i) => i.id)
      .slice(-ISSUES),
    parents: c.leaders.slice(-PARENTS),
    skills: [...catalog.knowledge.values()].filter(({ skill }) => admits(skill.appliesTo, scope)).map(({ skill }) => skill.id),
  };
}

/** What is kept of a sentence of the model's. */
const SENTENCE = 400;
const sentence = (text: string, otherwise: string): string => clipped(text, SENTENCE) || otherwise;
const sentences = (texts: readonly string[]): string[] => texts.slice(0, 8).map((t) => sentence(t, "-"));

/** Appends the backlog's changes and returns the decision's fact; the same decision again changes nothing more. */
async function carriedOut(d: Decision, context: EffectContext, of: PlanOf): Promise<CampaignFact> {
  const c = context.current();
  const number = c.experiments.length + 1;
  const file = (id: string, idea: Decision["ideas"][number]): BacklogIssue => ({
    id,
    title: clipped(idea.title, 120) || "untitled",
    mechanism: sentence(idea.mechanism, "-"),
    skills: [],
    expected: idea.expectedRatio,
    filedBy: "planner",
  });
  const ideas = d.ideas.slice(0, 8).map((idea, i) => file(`planner-e${number}-${i + 1}`, idea));
  const fresh =
    d.action === "implement" && d.issue === "" ? [file(`planner-e${number}`, { title: plain(d.claim) || d.mechanism, ...d })] : [];
  const known = new Set(c.backlog.map((i) => i.id));
  const issues = [...fresh, ...ideas].filter((i) => !known.has(i.id));
  if (issues.length > 0) await context.append({ type: "backlog.filed", issues });
  // The last word on each idea, so that the same decision again changes nothing.
  for (const { issue, strategy, reason } of new Map(d.edits.map((e) => [e.issue, e])).values())
    if (c.backlog.some((i) => i.id === issue && i.strategy !== strategy))
      await context.append({ type: "backlog.edited", issue, strategy, reason: sentence(reason, "no reason given") });
  if (d.action === "stop") return { type: "search.ended", reason: `the planner: ${sentence(d.reason, "no reason given")}` };
  return { ...proposal(d, c, of), experimentId: `e${number}` };
}

type Proposed = Extract<CampaignFact, { type: "experiment.proposed" }>;

function proposal(d: Decision, c: Campaign, { catalog, options }: PlanOf): Omit<Proposed, "experimentId"> {
  const on = { metric: c.target.objective, leader: leader(c) };
  if (d.action === "try") {
    const skill = catalog.skills.get(d.skill)?.skill;
    if (!skill) throw new Error(`${d.skill} was an option and is no skill`);
    const base = hypothesise(skill, d.expectedRatio, on);
    const hypothesis = { ...base, claim: sentence(d.claim, base.claim), falsification: sentence(d.falsification, base.falsification) };
    return { type: "experiment.proposed", issues: [issueId(d.skill)], hypothesis, weighed: [...options] };
  }
  const hypothesis: Hypothesis = {
    claim: sentence(d.claim, "a change by the implementer helps"),
    mechanism: sentence(d.mechanism, "-"),
    expected: { metric: on.metric.name, ratio: d.expectedRatio },
    activation: sentence(d.activation, "-"),
    falsification: sentence(d.falsification, "the interval of the paired ratio against the parent does not lie above 1"),
    invariants: [...INVARIANTS, ...sentences(d.invariants)],
    parent: d.parent === "" ? on.leader : d.parent,
    skills: [...new Set(d.skills.filter((s) => s !== ""))].slice(0, 8),
    passCriteria: [...PASS_CRITERIA, ...sentences(d.passCriteria)],
  };
  const issue = d.issue === "" ? `planner-e${c.experiments.length + 1}` : d.issue;
  return { type: "experiment.proposed", issues: [issue], hypothesis, weighed: [...options], author: "model" };
}
