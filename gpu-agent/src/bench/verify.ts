import type { RequestRecord } from "../../loadgen/plan.ts";
import { comparable } from "../tokenizer/index.ts";

/** What was asked for; known to the evaluator alone. */
export interface ExpectedAnswer {
  readonly promptIds: readonly number[];
  readonly outputTokens: number;
}

/** An answer whose every token stood up to the checks below. Times in ms after "go". */
export interface VerifiedRequest {
  readonly index: number;
  readonly client: number;
  readonly scheduledMs: number;
  /** Arrival of each token: that of the event which carried its id. */
  readonly tokenMs: readonly number[];
  readonly ids: readonly number[];
  /** Arrival of the response's last byte: when a client of a closed loop is free again. */
  readonly endMs: number;
}

/** Text of token ids by the evaluator's own tokenizer; throws RangeError on an id outside the vocabulary. */
export type Decode = (ids: readonly number[]) => string;

export type Verdict =
  | { readonly ok: true; readonly requests: readonly VerifiedRequest[] }
  | { readonly ok: false; readonly code: string; readonly message: string };

/**
 * Counts tokens from ids that agree with everything else that was said: ids = usage = requested length (ignore_eos), finish reason, the text that
 * the ids decode to, the prompt's own length. One violation makes the run worthless, since a candidate that lies once can't be timed. Codes:
 * `broken-stream`, `wrong-token-count`, `cheat-usage`, `wrong-prompt-count`, `wrong-finish`, `wrong-token-ids` (outside the vocabulary), `cheat-text`.
 * Whether the ids are what the model says is judged afterwards, on a hidden sample (probe.ts).
 */
export function verifyRun(records: readonly RequestRecord[], expected: readonly ExpectedAnswer[], decode: Decode): Verdict {
  const requests: VerifiedRequest[] = [];
  for (const r of records) {
    const want = expected[r.index];
    if (!want) throw new Error(`a record of request ${r.index}, which was not planned`);
    const problem = problemOf(r, want, decode);
    if (problem) return { ok: false, code: problem[0], message: `request ${r.index}: ${problem[1]}` };
    requests.push({
      index: r.index,
      client: r.connection,
      scheduledMs: r.scheduledMs,
      tokenMs: r.chunks.flatMap((c) => c.ids.map(() => c.atMs)),
      ids: r.chunks.flatMap((c) => c.ids),
      endMs: r.endMs ?? NaN,
    });
  }
  if (requests.length !== expected.length) {
    return { ok: false, code: "broken-stream", message: `${requests.length} of ${expected.length} requests were answered` };
  }
  return { ok: true, requests };
}

function problemOf(r: RequestRecord, want: ExpectedAnswer, decode: Decode): [code: string, message: string] | null {
  if (r.error !== null) return ["broken-stream", r.error];
  if (!r.done) return ["broken-stream", "the stream ends without [DONE]"];
  const ids = r.chunks.flatMap((c) => c.ids);
  if (ids.length !== want.outputTokens)
    return ["wrong-token-count", `${ids.length} token ids were served, ${want.outputTokens} were asked for`];
  if (r.usage === null) return ["cheat-usage", "usage is missing, though include_usage was asked for"];
  if (r.usage.completionTokens !== ids.length) {
    return ["cheat-usage", `usage says ${r.usage.completionTokens} completion tokens, ${ids.length} ids were served`];
  }
  if (r.usage.promptTokens !== want.promptIds.length) {
    return ["wrong-prompt-count", `usage says ${r.usage.promptTokens} prompt tokens, the prompt has ${want.promptIds.length}`];
  }
  if (r.finish !== "length") return ["wrong-finish", `finish_reason is ${JSON.stringify(r.finish)}, not "length"`];
  const text = r.chunks.map((c) => c.text).join("");
  let decoded: string;
  try {
    decoded = decode(ids);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    return ["wrong-token-ids", cause.message];
  }
  if (comparable(text) !== comparable(decoded))
    return ["cheat-text", `the ids decode to ${excerpt(decoded, text)}, the text is ${excerpt(text, decoded)}`];
  return null;
}

/** Around the first character in which `text` differs from `other`. */
function excerpt(text: string, other: string): string {
  let i = 0;
  while (i < text.length && text[i] === other[i]) i++;
  const from = Math.max(0, i - 20);
  return `${from > 0 ? "…" : ""}${JSON.stringify(text.slice(from, i + 40))}`;
}
