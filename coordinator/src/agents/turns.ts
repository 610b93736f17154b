import { setTimeout as sleep } from "node:timers/promises";
import { issuesOf, TurnOutcome, type ArtifactRef, type CampaignFact, type TurnFailureCode, type TurnRole } from "@vibeserve/shared";
import { EffectBlocked, EffectSuspended, type EffectContext } from "../campaign/effect-handlers.ts";
import { capReached } from "../campaign/caps.ts";
import type { Turn } from "../campaign/turns.ts";
import { costUsd, priceOf, worstUsd, type Price, type Prices } from "./prices.ts";
import { callsOf, wellFormed } from "./conversation.ts";
import { promptBytes, promptDigest, turnFailed, type Provider, type ProviderOutcome, type TurnRequest } from "./provider.ts";

export interface TurnDeps {
  provider: Provider;
  prices: Prices;
  /** Pauses between tries while the provider is out of reach, ms; the last goes on for ever. */
  pausesMs: readonly number[];
  /** Why nothing need be asked any more, as by now: time, experiments or ideas are at their end; null: go on. */
  over: () => string | null;
  /** Why so many dollars more do not fit what all campaigns together may spend, as the end of "the next turn of MODEL …"; null: they fit. */
  fleetCap: (usd: number) => string | null;
  /** Where turns with tools are kept: they may be larger than a message. */
  put: (bytes: Uint8Array) => Promise<ArtifactRef>;
}

/** A turn of a conversation about one experiment, see turn.requested. */
export type TurnOf = NonNullable<Extract<CampaignFact, { type: "turn.requested" }>["of"]>;

/** What a provider's outage costs at most in waiting before it is noticed to be over. */
export const PAUSES_MS = [1_000, 5_000, 15_000, 60_000] as const;
/** No provider is waited for longer at once, whatever it asks for. */
const LONGEST_MS = 3_600_000;

/** reply: "" where it is a turn with tools, which the log refers to. */
export type Taken = { kind: "answered"; reply: string } | { kind: "over"; reason: string } | { kind: "unusable"; reason: string };

/**
 * One paid turn, under ids `<name>.1`, `<name>.2` …: money is reserved in the log before it is asked for, and its answer is in the log before it is used.
 *   T1. What was answered is never asked again: after a kill the log's answer is taken.
 *   T2. A turn that was asked when the process ended counts as failed and spent, and is asked anew.
 *   T3. What is temporary (limits, overload, network) is asked again for as long as the search lasts, says so, and blames nobody (I8).
 *   T4. A paused campaign asks nothing (EffectSuspended).
 *   T5. In a conversation an answer that can't be used (cut short, refused, too long a prompt) is asked for once more; a second is the end of that conversation,
 *       not of the campaign, whose other experiments it says nothing of.
 * over: the money or (as `over` says) the search is at its end. Throws EffectBlocked where only a person can help: no price, no right to ask.
 */
export async function takeTurn(
  deps: TurnDeps,
  context: EffectContext,
  name: string,
  role: TurnRole,
  given: Omit<TurnRequest, "turn" | "campaign">,
  of?: TurnOf,
): Promise<Taken> {
  const request = { ...given, messages: wellFormed(given.messages) };
  const append = async (fact: Parameters<EffectContext["append"]>[0]): Promise<void> => {
    if (!(await context.append(fact))) throw new Error("the campaign has ended");
  };
  for (let tries = 0; ; tries++) {
    const campaign = context.current();
    if (campaign.pausedAt) throw new EffectSuspended();
    const mine = campaign.turns.filter((t) => t.id.startsWith(`${name}.`));
    const last = mine.at(-1);
    if (last?.outcome?.status === "answered") return { kind: "answered", reply: last.outcome.reply };
    if (last?.outcome?.status === "said") return { kind: "answered", reply: "" };
    if (last?.outcome === null) {
      await append({ type: "turn.settled", turnId: last.id, outcome: LOST, usd: last.reservedUsd });
      continue;
    }
    const unusable = mine.flatMap((t) => (t.outcome?.status === "failed" && UNUSABLE.has(t.outcome.code) ? [t.outcome] : []));
    if (of && unusable.length >= USABLE_TRIES)
      return { kind: "unusable", reason: unusable.map((o) => `${o.code}: ${o.message}`).join("; ") };
    const ended = deps.over();
    if (ended !== null) return { kind: "over", reason: ended };
    const model = stillThere(request.model, mine);
    const price = priceOf(deps.prices, model);
    if (!price)
      throw new EffectBlocked(`no price is known for model ${model}; add it to prices.yaml in the data folder (${known(deps.prices)})`);
    const turnId = `${name}.${mine.length + 1}`;
    const asked: TurnRequest = { ...request, model, turn: turnId, campaign: campaign.id };
    let worst = worstOf(deps.provider, price, asked, promptBytes(asked));
    // Counted, a prompt has some third of its bytes: that may be what still fits.
    const capOf = (next: typeof worst): string | null => capReached(campaign, next) ?? deps.fleetCap(next.usd);
    if (capOf(worst) !== null && deps.provider.count) {
      const tokens = await deps.provider.count(asked, context.signal);
      if (tokens !== null) worst = worstOf(deps.provider, price, asked, Math.ceil(tokens * COUNT_MARGIN));
    }
    const cap = capOf(worst);
    if (cap !== null) return { kind: "over", reason: `the next turn of ${model} ${cap}` };
    await append({
      type: "turn.requested",
      ...{
        turnId,
        role,
        provider: deps.provider.name,
        model,
        promptDigest: promptDigest(asked),
        reservedUsd: worst.usd,
        reservedTokens: worst.tokens,
      },
      ...(of ? { of } : {}),
    });
    const { usd: billed, ...answer } = await deps.provider.turn(asked, context.signal);
    const fit = fitOf(await stored(deps, context, answer));
    const { outcome } = fit;
    const usual = outcome.usage ? costUsd(price, outcome.usage) : outcome.status === "failed" && outcome.code === "cut-off" ? worst.usd : 0;
    const usd = fit.ok && Number.isFinite(billed ?? usual) ? Math.max(0, billed ?? usual) : worst.usd;
    await append({ type: "turn.settled", turnId, outcome, usd });
    if (outcome.status !== "failed") continue;
    if (outcome.code === "no-such-model" && model !== request.model.split(",").at(-1)) continue;
    if (of && UNUSABLE.has(outcome.code)) continue;
    if (!outcome.temporary) throw new EffectBlocked(`${deps.provider.name} (${model}): ${outcome.code}: ${outcome.message}`);
    const pause = Math.min(Math.max(outcome.retryAfterMs ?? 0, pauseMs(deps, tries)), LONGEST_MS);
    context.waits(`${deps.provider.name}: ${outcome.code}: ${outcome.message}; asked again in ${Math.ceil(pause / 1000)} s`);
    await sleep(pause, undefined, { signal: context.signal });
    context.waits(null);
  }
}

/** What the model, not its provider, did not get done. */
const UNUSABLE: ReadonlySet<TurnFailureCode> = new Set(["cut-short", "refusal", "context-overflow"]);
const USABLE_TRIES = 2;

/** What is counted is close to what is billed, not the same. */
const COUNT_MARGIN = 1.05;

/** Of a list "a,b,c" the first that its provider has not said to be gone, in this turn. */
function stillThere(models: string, tries: readonly Turn[]): string {
  const names = models.split(",");
  const gone = tries.filter((t) => t.outcome?.status === "failed" && t.outcome.code === "no-such-model").length;
  // After a pause the whole list is tried again.
  return names[gone % names.length] ?? models;
}

/** The most that a turn can take, where its prompt has `tokens` at the most. */
function worstOf(provider: Provider, price: Price, { maxTokens }: TurnRequest, tokens: number): { usd: number; tokens: number } {
  return provider.reserve ?? { usd: worstUsd(price, tokens, maxTokens), tokens: tokens + maxTokens };
}
const pauseMs = ({ pausesMs }: TurnDeps, tries: number): number => pausesMs[Math.min(tries, pausesMs.length - 1)] ?? 0;

/** No turn asks for more at once; what is beyond is not looked at. */
const MAX_CALLS = 32;

/** What a broken endpoint sends must not be more than the log can hold: it may have been billed, so it is charged as reserved. */
function fitOf(outcome: TurnOutcome): { ok: boolean; outcome: TurnOutcome } {
  const parsed = TurnOutcome.safeParse(outcome);
  if (parsed.success) return { ok: true, outcome };
  return { ok: false, outcome: turnFailed("refused-request", `the answer has a form that is not known: ${issuesOf(parsed.error)}`, null) };
}

/** An answer that was paid is kept for as long as it takes to store it. */
async function stored(deps: TurnDeps, context: EffectContext, outcome: ProviderOutcome): Promise<TurnOutcome> {
  if (outcome.status !== "said") return outcome;
  const calls = callsOf(outcome.content).map(({ id, tool }) => ({ id: id.slice(0, 200), tool: tool.slice(0, 64) }));
  const bytes = Buffer.from(JSON.stringify(outcome.content));
  for (let tries = 0; ; tries++) {
    try {
      const content = await deps.put(bytes);
      if (tries > 0) context.waits(null);
      return { status: "said", content, calls: calls.slice(0, MAX_CALLS), usage: outcome.usage };
    } catch (error) {
      context.waits(`an answer can't be stored: ${error instanceof Error ? error.message : String(error)}; tried again`);
      await sleep(pauseMs(deps, tries), undefined, { signal: context.signal });
    }
  }
}

const LOST: TurnOutcome = {
  status: "failed",
  code: "lost",
  message: "the coordinator ended before the answer came; it may have been paid",
  temporary: true,
  retryAfterMs: null,
  usage: null,
};

const known = (p: Prices): string => `priced: ${Object.keys(p.models).join(", ")}`;
