import { z } from "zod";
import { ArtifactRef } from "./ids.ts";

/** Tokens of one turn as the provider billed them. */
export const TurnUsage = z.strictObject({
  input: z.int().min(0),
  output: z.int().min(0),
  cacheRead: z.int().min(0),
  cacheWrite: z.int().min(0),
});
export type TurnUsage = z.infer<typeof TurnUsage>;

/**
 * Why a turn has no usable answer. temporary ones are asked again by themselves; the others need a person.
 * cut-off: the stream broke in the middle. lost: the process ended before the answer came. Either may have been billed, so it is charged as reserved.
 */
export const TurnFailureCode = z.enum([
  "rate-limited",
  "overloaded",
  "unreachable",
  "cut-off",
  "lost",
  "bad-key",
  "no-such-model",
  "refused-request",
  "context-overflow",
  "refusal",
  "cut-short",
]);
export type TurnFailureCode = z.infer<typeof TurnFailureCode>;

/** A tool that the model asks for, without its arguments: those are in the turn's content. `id` is the provider's. */
export const ToolCall = z.strictObject({ id: z.string().min(1).max(200), tool: z.string().min(1).max(64) });

/** What came of one exchange with a model. `reply` is untrusted text. */
export const TurnOutcome = z.discriminatedUnion("status", [
  z.strictObject({ status: z.literal("answered"), reply: z.string().max(65_536), usage: TurnUsage }),
  /** A turn of a conversation with tools: its blocks are an artifact (coordinator/src/agents/conversation.ts), as the provider gave them. */
  z.strictObject({
    status: z.literal("said"),
    content: ArtifactRef,
    calls: z.array(ToolCall).max(32),
    usage: TurnUsage,
  }),
  z.strictObject({
    status: z.literal("failed"),
    code: TurnFailureCode,
    message: z.string().max(2_000),
    /** Asking again later may help. */
    temporary: z.boolean(),
    /** The provider asks to wait so long; null: it did not say. */
    retryAfterMs: z.int().min(0).nullable(),
    usage: TurnUsage.nullable(),
  }),
]);
export type TurnOutcome = z.infer<typeof TurnOutcome>;

export const TurnRole = z.enum(["planner", "implementer", "judge", "evaluator"]);
export type TurnRole = z.infer<typeof TurnRole>;
