import type { TurnOutcome } from "@vibeserve/shared";

/** One turn of a conversation that begins anew each time: no memory but what is in here. */
export interface TurnRequest {
  model: string;
  /** Bound on the answer, its reasoning included, in tokens. */
  maxTokens: number;
  /** Stable text: roles and rules. A provider may cache it. */
  system: string;
  messages: readonly { role: "user" | "assistant"; content: string }[];
  /** JSON schema that the reply must follow. */
  schema: Readonly<Record<string, unknown>>;
}

/** Where models are asked. `turn` never rejects for what a network or a provider does: failures are values. */
export interface Provider {
  readonly name: string;
  turn(request: TurnRequest, signal: AbortSignal): Promise<TurnOutcome>;
}

/** Bytes that are sent, for bounds on what a turn can cost. */
export const promptBytes = (r: TurnRequest): number =>
  Buffer.byteLength(r.system) + r.messages.reduce((sum, m) => sum + Buffer.byteLength(m.content), 0) + JSON.stringify(r.schema).length;
