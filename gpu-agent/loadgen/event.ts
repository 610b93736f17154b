/**
 * How a server speaks: "openai" is the candidate's contract; "openai-ids" that of engines whose completions stream ids when asked to by `return_token_ids`;
 * "llama.cpp" its own /completion, since only that streams token ids.
 */
export type Dialect = "openai" | "openai-ids" | "llama.cpp";

/** What one server-sent event says, whatever the dialect. Absent: it says nothing of that. */
export interface StreamEvent {
  readonly ids: readonly number[];
  readonly text: string;
  readonly finish?: string;
  readonly usage?: { readonly promptTokens: number; readonly completionTokens: number };
  /** Nothing may follow. */
  readonly done: boolean;
}

/** Throws Error that quotes the event where it is malformed, or carries an error. */
export function readEvent(data: string, dialect: Dialect): StreamEvent {
  if (data === "[DONE]") return { ids: [], text: "", done: true };
  let event: unknown;
  try {
    event = JSON.parse(data);
  } catch {
    throw new Error(`an event that is not JSON: ${quote(data)}`);
  }
  const error = member(event, "error");
  if (error !== undefined && error !== null) throw new Error(`the stream carries an error: ${quote(data)}`);
  return dialect === "llama.cpp" ? llamaCpp(event, data) : openai(event, data);
}

function openai(event: unknown, data: string): StreamEvent {
  const choice = member(member(event, "choices"), 0);
  const finish = member(choice, "finish_reason");
  const usage = member(event, "usage");
  return {
    ids: tokenIds(member(choice, "token_ids"), data),
    // Chat completions carry the text in delta.content, completions in text.
    text: textOf(member(member(choice, "delta"), "content") ?? member(choice, "text"), data),
    ...(typeof finish === "string" ? { finish } : {}),
    ...usageOf(member(usage, "prompt_tokens"), member(usage, "completion_tokens")),
    done: false,
  };
}

function llamaCpp(event: unknown, data: string): StreamEvent {
  const last = member(event, "stop") === true;
  const stopType = member(event, "stop_type");
  return {
    ids: tokenIds(member(event, "tokens"), data),
    text: textOf(member(event, "content"), data),
    ...(last ? { finish: stopType === "limit" ? "length" : "stop" } : {}),
    ...(last ? usageOf(member(event, "tokens_evaluated"), member(event, "tokens_predicted")) : {}),
    done: last,
  };
}

function usageOf(promptTokens: unknown, completionTokens: unknown): Pick<StreamEvent, "usage"> {
  return typeof promptTokens === "number" && typeof completionTokens === "number" ? { usage: { promptTokens, completionTokens } } : {};
}

function tokenIds(value: unknown, data: string): number[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || !value.every((id): id is number => Number.isInteger(id) && id >= 0)) {
    throw new Error(`token ids that are none: ${quote(data)}`);
  }
  return value;
}

function textOf(value: unknown, data: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw new Error(`text that is not a string: ${quote(data)}`);
  return value;
}

function member(value: unknown, key: string | number): unknown {
  return value !== null && typeof value === "object" ? (value as Record<string | number, unknown>)[key] : undefined;
}

/** At most 300 characters of untrusted text, without control characters. */
export function quote(text: string): string {
  return JSON.stringify(text.slice(0, 300));
}
