import type { TurnFailureCode } from "@vibeserve/shared";
import { turnFailed, type ProviderOutcome } from "./provider.ts";

/** By status: https://platform.claude.com/docs/en/api/errors; endpoints of chat-completions use the same ones. */
const BY_STATUS: Readonly<Record<number, TurnFailureCode>> = {
  401: "bad-key",
  402: "bad-key",
  403: "bad-key",
  404: "no-such-model",
  408: "overloaded",
  413: "context-overflow",
  429: "rate-limited",
  529: "overloaded",
};

/** How servers say that prompt and answer do not fit: OpenAI and vLLM, SGLang, llama-server (with a 500 too), Anthropic, vLLM's engine, our stacks, Groq. */
const OVERFLOW =
  /context[ _](length|window|size|limit)|exceed_context|(prompt|input) is too long|maximum (model|prompt) length|more than the context|reduce the length of/i;

/** No longer pause is taken from a server at its word. */
const LONGEST_MS = 86_400_000;

/**
 * What an error of a provider's client (Anthropic's and OpenAI's have the same shape) means. begun: the answer had, so it may have been billed.
 * Some servers send a 4xx in the middle of the stream: it counts as one.
 */
export function failureOf(error: unknown, begun: boolean): Extract<ProviderOutcome, { status: "failed" }> {
  const words = wordsOf(error);
  const status = numberIn(error, "status") ?? (begun ? clientError(numberIn(error, "code")) : null);
  const code = codeOf(status, begun, words);
  return turnFailed(code, words, null, code === "rate-limited" || code === "overloaded" ? retryAfterMs(error) : null);
}

function codeOf(status: number | null, begun: boolean, words: string): TurnFailureCode {
  const known = status === null ? undefined : BY_STATUS[status];
  if (known) return known;
  if ((begun || status !== null) && OVERFLOW.test(words)) return "context-overflow";
  // Nobody answered; or there is nobody to ask as: AWS's and Google's clients look for credentials themselves.
  if (status === null) return begun ? "cut-off" : /credentials/i.test(words) ? "bad-key" : "unreachable";
  return status >= 500 ? "overloaded" : "refused-request";
}

/** With its causes: a client's own "Connection error." does not say which. */
function wordsOf(error: unknown): string {
  const words: string[] = [];
  for (let e = error; e instanceof Error && words.length < 4; e = e.cause) words.push(e.message || e.name);
  return words.join(": ") || "no reason was given";
}

function numberIn(error: unknown, key: string): number | null {
  const value: unknown = error instanceof Error ? Reflect.get(error, key) : undefined;
  return typeof value === "number" ? value : null;
}

const clientError = (code: number | null): number | null => (code !== null && code >= 400 && code < 500 ? code : null);

function retryAfterMs(error: unknown): number | null {
  const headers: unknown = error instanceof Error ? Reflect.get(error, "headers") : undefined;
  const seconds = Number((headers instanceof Headers && headers.get("retry-after")) || NaN);
  return seconds >= 0 ? Math.min(Math.round(seconds * 1000), LONGEST_MS) : null;
}
