import type { ChunkRecord, RequestRecord } from "./plan.ts";
import type { Transcript } from "./transcript.ts";

/** A response without its HTTP framing, and where each of its bytes stood, so that an event can be given the arrival of its last byte. */
interface Body {
  readonly status: number;
  readonly bytes: Buffer;
  /** Pieces of `bytes`: [first offset in the body, its offset in the transcript]. */
  readonly pieces: readonly (readonly [body: number, raw: number])[];
}

/** The record of one request; never throws: what is malformed is said in `error`. */
export function parseTranscript(t: Transcript): RequestRecord {
  const base = {
    index: t.index,
    connection: t.connection,
    scheduledMs: t.scheduledMs,
    sentMs: Number.isNaN(t.sentMs) ? null : t.sentMs,
    firstByteMs: t.length > 0 ? t.arrivalOf(0) : null,
    endMs: Number.isNaN(t.endMs) ? null : t.endMs,
  };
  const chunks: ChunkRecord[] = [];
  const state: StreamState = { finish: null, usage: null, done: false };
  let status: number | null = null;
  let error = t.error;
  try {
    const body = unframe(t.bytes());
    status = body.status;
    if (status !== 200) throw new Error(`status ${status}: ${quote(body.bytes.toString("utf8"))}`);
    readEvents(body, t, chunks, state);
    if (error === null && base.endMs === null) error = "the response did not end";
  } catch (cause) {
    error ??= cause instanceof Error ? cause.message : String(cause);
  }
  return { ...base, status, chunks, ...state, error };
}

/** Head and transfer encoding taken off. Throws where the framing is broken; a body that merely stops early is returned as far as it goes. */
function unframe(raw: Buffer): Body {
  const headEnd = raw.indexOf("\r\n\r\n");
  if (headEnd < 0) throw new Error(raw.length === 0 ? "no answer" : "no whole response head");
  const head = raw.toString("latin1", 0, headEnd);
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? NaN);
  if (Number.isNaN(status)) throw new Error(`not HTTP: ${quote(head)}`);
  const start = headEnd + 4;
  if (!/\r\ntransfer-encoding: *chunked/i.test(head)) return { status, bytes: raw.subarray(start), pieces: [[0, start]] };

  const parts: Buffer[] = [];
  const pieces: [number, number][] = [];
  let at = start;
  let length = 0;
  while (at < raw.length) {
    const lineEnd = raw.indexOf("\r\n", at);
    if (lineEnd < 0) break;
    const line = raw.toString("latin1", at, lineEnd);
    const size = /^[0-9a-f]{1,7}(?=;|$)/i.exec(line)?.[0];
    if (size === undefined) throw new Error(`bad chunk size: ${quote(line)}`);
    const bytes = parseInt(size, 16);
    if (bytes === 0) break;
    const from = lineEnd + 2;
    const part = raw.subarray(from, Math.min(from + bytes, raw.length));
    pieces.push([length, from]);
    parts.push(part);
    length += part.length;
    at = from + bytes + 2;
  }
  return { status, bytes: Buffer.concat(parts), pieces };
}

interface StreamState {
  finish: string | null;
  usage: { promptTokens: number; completionTokens: number } | null;
  done: boolean;
}

/** Server-sent events: each ends with an empty line; only `data:` lines matter; a line that starts with a colon is a comment. */
function readEvents(body: Body, t: Transcript, chunks: ChunkRecord[], state: StreamState): void {
  const { bytes, pieces } = body;
  let from = 0;
  let piece = 0;
  let data = "";
  while (from < bytes.length) {
    const newline = bytes.indexOf(10, from);
    if (newline < 0) break;
    const line = bytes.toString("utf8", from, bytes[newline - 1] === 13 && newline > from ? newline - 1 : newline);
    from = newline + 1;
    if (line.startsWith("data:")) data += line.slice(line[5] === " " ? 6 : 5);
    if (line !== "" || data === "") continue;
    while (piece + 1 < pieces.length && (pieces[piece + 1]?.[0] ?? Infinity) <= newline) piece++;
    const [inBody, inRaw] = pieces[piece] ?? [0, 0];
    takeEvent(data, t.arrivalOf(inRaw + newline - inBody), chunks, state);
    data = "";
  }
  if (data !== "") throw new Error(`the stream ends inside an event: ${quote(data)}`);
}

function takeEvent(data: string, atMs: number, chunks: ChunkRecord[], state: StreamState): void {
  if (state.done) throw new Error(`an event after [DONE]: ${quote(data)}`);
  if (data === "[DONE]") {
    state.done = true;
    return;
  }
  let event: unknown;
  try {
    event = JSON.parse(data);
  } catch {
    throw new Error(`an event that is not JSON: ${quote(data)}`);
  }
  const choice = member(member(event, "choices"), 0);
  const ids = member(choice, "token_ids") ?? [];
  if (!isTokenIds(ids)) throw new Error(`token_ids that are not token ids: ${quote(data)}`);
  // Chat completions carry the text in delta.content, completions in text.
  const text = member(member(choice, "delta"), "content") ?? member(choice, "text") ?? "";
  if (typeof text !== "string") throw new Error(`text that is not a string: ${quote(data)}`);
  if (ids.length > 0 || text !== "") {
    if (state.finish !== null) throw new Error(`tokens after finish_reason: ${quote(data)}`);
    chunks.push({ atMs, ids, text });
  }
  const finish = member(choice, "finish_reason");
  if (typeof finish === "string") state.finish = finish;
  const usage = member(event, "usage");
  const promptTokens = member(usage, "prompt_tokens");
  const completionTokens = member(usage, "completion_tokens");
  if (typeof promptTokens === "number" && typeof completionTokens === "number") state.usage = { promptTokens, completionTokens };
  const error = member(event, "error");
  if (error !== undefined && error !== null) throw new Error(`the stream carries an error: ${quote(data)}`);
}

function member(value: unknown, key: string | number): unknown {
  return value !== null && typeof value === "object" ? (value as Record<string | number, unknown>)[key] : undefined;
}

function isTokenIds(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((id) => Number.isInteger(id) && id >= 0);
}

/** At most 300 characters of untrusted text, without control characters. */
function quote(text: string): string {
  return JSON.stringify(text.slice(0, 300));
}
