import { quote, readEvent, type Dialect } from "./event.ts";
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
export function parseTranscript(t: Transcript, dialect: Dialect): RequestRecord {
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
    readEvents(body, t, dialect, chunks, state);
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
  usage: RequestRecord["usage"];
  done: boolean;
}

/** Server-sent events: each ends with an empty line; only `data:` lines matter; a line that starts with a colon is a comment. */
function readEvents(body: Body, t: Transcript, dialect: Dialect, chunks: ChunkRecord[], state: StreamState): void {
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
    takeEvent(data, t.arrivalOf(inRaw + newline - inBody), dialect, chunks, state);
    data = "";
  }
  const rest = data + bytes.toString("utf8", from);
  if (rest !== "") throw new Error(`the stream ends inside an event: ${quote(rest)}`);
}

function takeEvent(data: string, atMs: number, dialect: Dialect, chunks: ChunkRecord[], state: StreamState): void {
  if (state.done) throw new Error(`an event after the end: ${quote(data)}`);
  const event = readEvent(data, dialect);
  if (event.ids.length > 0 || event.text !== "") {
    if (state.finish !== null) throw new Error(`tokens after finish_reason: ${quote(data)}`);
    chunks.push({ atMs, ids: event.ids, text: event.text });
  }
  state.finish = event.finish ?? state.finish;
  state.usage = event.usage ?? state.usage;
  state.done = event.done;
}
