import { setTimeout as sleep } from "node:timers/promises";
import type { ArtifactRef, CampaignFact, TurnOutcome, TurnRole } from "@vibeserve/shared";
import { EffectBlocked, EffectSuspended, type EffectContext } from "../campaign/effect-handlers.ts";
import { capReached } from "../campaign/caps.ts";
import { costUsd, worstUsd, type Price, type Prices } from "./prices.ts";
import { callsOf } from "./conversation.ts";
import { promptBytes, promptDigest, type Provider, type ProviderOutcome, type TurnRequest } from "./provider.ts";

export interface TurnDeps {
  provider: Provider;
  prices: Prices;
  /** Pauses between tries while the provider is out of reach, ms; the last goes on for ever. */
  pausesMs: readonly number[];
  /** Why nothing need be asked any more, as by now: time, experiments or ideas are at their end; null: go on. */
  over: () => string | null;
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
export type Taken = { kind: "answered"; reply: string } | { kind: "over"; reason: string };

/**
 * One paid turn, under ids `<name>.1`, `<name>.2` …: money is reserved in the log before it is asked for, and its answer is in the log before it is used.
 *   T1. What was answered is never asked again: after a kill the log's answer is taken.
 *   T2. A turn that was asked when the process ended counts as failed and spent, and is asked anew.
 *   T3. What is temporary (limits, overload, network) is asked again for as long as the search lasts, says so, and blames nobody (I8).
 *   T4. A paused campaign asks nothing (EffectSuspended).
 * over: the money or (as `over` says) the search is at its end. Throws EffectBlocked where only a person can help: no price, no right to ask.
 */
export async function takeTurn(
  deps: TurnDeps,
  context: EffectContext,
  name: string,
  role: TurnRole,
  request: Omit<TurnRequest, "turn">,
  of?: TurnOf,
): Promise<Taken> {
  const price = deps.prices.models[request.model];
  if (!price)
    throw new EffectBlocked(
      `no price is known for model ${request.model}; add it to prices.yaml in the data folder (${known(deps.prices)})`,
    );
  const { usd: worst, tokens: worstTokens } = deps.provider.reserve ?? reserveFor(price, request);
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
    const ended = deps.over();
    if (ended !== null) return { kind: "over", reason: ended };
    const cap = capReached(campaign, { usd: worst, tokens: worstTokens });
    if (cap !== null) return { kind: "over", reason: `the next turn of ${request.model} ${cap}` };
    const turnId = `${name}.${mine.length + 1}`;
    await append({
      type: "turn.requested",
      ...{
        turnId,
        role,
        provider: deps.provider.name,
        model: request.model,
        promptDigest: promptDigest(request),
        reservedUsd: worst,
        reservedTokens: worstTokens,
      },
      ...(of ? { of } : {}),
    });
    const { usd: billed, ...answer } = await deps.provider.turn({ ...request, turn: turnId }, context.signal);
    const outcome = await stored(deps, answer);
    const usd =
      billed ?? (outcome.usage ? costUsd(price, outcome.usage) : outcome.status === "failed" && outcome.code === "cut-off" ? worst : 0);
    await append({ type: "turn.settled", turnId, outcome, usd });
    if (outcome.status !== "failed") continue;
    if (!outcome.temporary) throw new EffectBlocked(`${deps.provider.name} (${request.model}): ${outcome.code}: ${outcome.message}`);
    const own = deps.pausesMs[Math.min(tries, deps.pausesMs.length - 1)] ?? 0;
    const pause = Math.min(Math.max(outcome.retryAfterMs ?? 0, own), LONGEST_MS);
    context.waits(`${deps.provider.name}: ${outcome.code}: ${outcome.message}; asked again in ${Math.ceil(pause / 1000)} s`);
    await sleep(pause, undefined, { signal: context.signal });
    context.waits(null);
  }
}

function reserveFor(price: Price, request: Omit<TurnRequest, "turn">): { usd: number; tokens: number } {
  const bytes = promptBytes(request);
  return { usd: worstUsd(price, bytes, request.maxTokens), tokens: bytes + request.maxTokens };
}

/** No turn asks for more at once; what is beyond is not looked at. */
const MAX_CALLS = 32;

async function stored(deps: TurnDeps, outcome: ProviderOutcome): Promise<TurnOutcome> {
  if (outcome.status !== "said") return outcome;
  const calls = callsOf(outcome.content).map(({ id, tool }) => ({ id: id.slice(0, 200), tool: tool.slice(0, 64) }));
  const content = await deps.put(Buffer.from(JSON.stringify(outcome.content)));
  return { status: "said", content, calls: calls.slice(0, MAX_CALLS), usage: outcome.usage };
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
