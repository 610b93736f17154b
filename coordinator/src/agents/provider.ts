import { createHash } from "node:crypto";
import { canonicalJson, type TurnFailureCode, type TurnOutcome, type TurnUsage } from "@vibeserve/shared";
import type { CandidateFiles } from "../checkpoint/candidate-files.ts";
import { bytesOf, type Block, type Message, type ToolSpec } from "./conversation.ts";
import { plain } from "./prompt.ts";

/** One turn of a conversation: nothing is remembered but what is in here. */
export interface TurnRequest {
  /** The turn's id in the log; sent along as a header where a provider takes one, so that its logs can be told apart. Not part of the prompt. */
  turn: string;
  /** Whose it is: two campaigns may ask at once, under turns of the same id. */
  campaign: string;
  model: string;
  /** Bound on the answer, its reasoning included, in tokens. */
  maxTokens: number;
  /** Stable text: roles and rules. A provider may cache it, and the conversation up to its last message. */
  system: string;
  messages: readonly Message[];
  /** What the reply must be: one JSON object that follows a schema, or free text with calls of these tools. */
  reply: { kind: "schema"; schema: Readonly<Record<string, unknown>> } | { kind: "tools"; tools: readonly ToolSpec[] };
  /** How hard the model should think, where it can be told; default: as the provider has it. Current models take no budget in tokens. */
  effort?: "low" | "medium" | "high" | "xhigh" | "max";
  /** For an agent that works on files: the tree as the conversation has left it, whether its changes count, and the tool that ends the conversation. */
  tree?: CandidateFiles;
  writes?: boolean;
  final?: string;
}

/** What a provider came back with: an answer to a schema, a turn with tools, or a failure. usd: what it cost, where that is not its tokens' price. */
export type ProviderOutcome = (
  Extract<TurnOutcome, { status: "answered" | "failed" }> | { status: "said"; content: Block[]; usage: TurnUsage }
) & { usd?: number };

/** Where models are asked. `turn` never rejects for what a network or a provider does: failures are values. It rejects when `signal` is aborted. */
export interface Provider {
  readonly name: string;
  /** The most that a turn can take, where that does not follow from the prompt's length. */
  readonly reserve?: { readonly usd: number; readonly tokens: number };
  turn(request: TurnRequest, signal: AbortSignal): Promise<ProviderOutcome>;
  /** Tokens of the prompt, counted by the provider at no price; null: it can't say now. Rejects when `signal` is aborted. */
  count?(request: TurnRequest, signal: AbortSignal): Promise<number | null>;
}

/** Failures after which asking again by itself may help. */
const TEMPORARY: ReadonlySet<TurnFailureCode> = new Set(["rate-limited", "overloaded", "unreachable", "cut-off"]);

/** A failure with the provider's own words, made safe for a terminal. */
export function turnFailed(
  code: TurnFailureCode,
  message: string,
  usage: TurnUsage | null,
  retryAfterMs: number | null = null,
): Extract<TurnOutcome, { status: "failed" }> {
  return { status: "failed", code, message: plain(message).slice(0, 2_000), temporary: TEMPORARY.has(code), retryAfterMs, usage };
}

/** Bytes that are sent, for bounds on what a turn can cost. */
export const promptBytes = ({ system, messages, reply }: Pick<TurnRequest, "system" | "messages" | "reply">): number =>
  Buffer.byteLength(system) + messages.reduce((sum, m) => sum + bytesOf(m) + 1, 0) + Buffer.byteLength(JSON.stringify(reply)) + 4;

/** What a turn counts as whose provider does not count: all that was reserved for it. */
export const reservedUsage = (request: TurnRequest): TurnUsage => ({
  ...NO_USAGE,
  ...{ input: promptBytes(request), output: request.maxTokens },
});

export const NO_USAGE: TurnUsage = { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 };

export const addUsage = (a: TurnUsage, b: TurnUsage): TurnUsage => ({
  input: a.input + b.input,
  output: a.output + b.output,
  cacheRead: a.cacheRead + b.cacheRead,
  cacheWrite: a.cacheWrite + b.cacheWrite,
});

/** digestOf the same object, a message at a time: a long conversation is never one text. */
export function promptDigest({ messages, model, reply, system }: Pick<TurnRequest, "model" | "system" | "messages" | "reply">): string {
  const hash = createHash("sha256").update('{"messages":[');
  for (const [i, message] of messages.entries()) hash.update(`${i === 0 ? "" : ","}${canonicalJson(message)}`);
  const rest = canonicalJson({ model, reply, system });
  return hash.update(`],${rest.slice(1)}`).digest("hex");
}
