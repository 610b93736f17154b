import type { Readable } from "node:stream";

/** The frames of gpu-agent/reference/protocol.hpp, little-endian. */
const REQUEST = 0x51525356;
const ANSWER = 0x53525356;
const MAX_PAYLOAD_BYTES = 64 << 20;

/** The reference cannot answer: the harness's failure, never the candidate's. */
export class ReferenceError extends Error {
  override readonly name = "ReferenceError";
}

export interface Sequence {
  readonly tokens: readonly number[];
  /** First position whose prediction is wanted, default 0. */
  readonly from?: number;
  /** Ids whose log-probability is wanted besides, each at a position from `from` on. */
  readonly extras?: readonly { readonly position: number; readonly id: number }[];
}

/** Row p holds the prediction after position `from + p`: `top` ids, most likely first, with natural logarithms of their probabilities. */
export interface SequenceScores {
  readonly from: number;
  readonly positions: number;
  readonly top: number;
  readonly ids: Int32Array;
  readonly logprobs: Float32Array;
  /** Of the sequence's own next token; NaN at its last position. */
  readonly next: Float32Array;
  readonly extras: Float32Array;
}

export function encodeRequest(id: number, sequences: readonly Sequence[]): Buffer {
  const words = 3 + sequences.reduce((n, s) => n + 3 + s.tokens.length + 2 * (s.extras?.length ?? 0), 0);
  const frame = Buffer.alloc(words * 4);
  let at = 0;
  const put = (word: number): void => void (at = frame.writeInt32LE(word | 0, at));
  [REQUEST, id, sequences.length].forEach(put);
  for (const s of sequences) {
    [s.tokens.length, s.from ?? 0, s.extras?.length ?? 0, ...s.tokens].forEach(put);
    s.extras?.forEach((e) => [e.position, e.id].forEach(put));
  }
  return frame;
}

/** Splits an answer's payload. Throws if its size is not what the sequences ask for. */
export function decodeScores(payload: Buffer, sequences: readonly Sequence[], top: number): SequenceScores[] {
  const bytes = new Uint8Array(payload).buffer;
  const ints = new Int32Array(bytes);
  const floats = new Float32Array(bytes);
  let at = 0;
  const scores = sequences.map((s): SequenceScores => {
    const from = s.from ?? 0;
    const positions = s.tokens.length - from;
    const out = {
      from,
      positions,
      top,
      ids: new Int32Array(positions * top),
      logprobs: new Float32Array(positions * top),
      next: new Float32Array(positions),
    };
    for (let p = 0; p < positions; p++, at += 2 * top + 1) {
      out.ids.set(ints.subarray(at, at + top), p * top);
      out.logprobs.set(floats.subarray(at + top, at + 2 * top), p * top);
      out.next[p] = floats[at + 2 * top] ?? NaN;
    }
    const extras = floats.slice(at, at + (s.extras?.length ?? 0));
    at += extras.length;
    return { ...out, extras };
  });
  if (at * 4 !== payload.length) throw new ReferenceError(`the reference's answer has ${payload.length} bytes instead of ${at * 4}`);
  return scores;
}

export interface Answer {
  readonly id: number;
  readonly status: number;
  readonly payload: Buffer;
}

/** Reads answers off a stream, one at a time. The end of the stream fails every later `next`. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #bytes = 0;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(stream: Readable, lastWords: () => string) {
    stream.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
      this.#wake?.();
    });
    stream.once("close", () => this.fail(new ReferenceError(`the reference ended: ${lastWords() || "no message"}`)));
    stream.once("error", (error) => this.fail(error));
  }

  fail(error: Error): void {
    this.#error ??= error;
    this.#wake?.();
  }

  /** The next answer. Throws ReferenceError where it takes longer. */
  async next(timeoutMs: number): Promise<Answer> {
    const head = await this.#take(16, timeoutMs);
    if (head.readUInt32LE(0) !== ANSWER) throw new ReferenceError("the reference's output holds no answer frame");
    const length = head.readUInt32LE(12);
    if (length > MAX_PAYLOAD_BYTES) throw new ReferenceError(`the reference announces ${length} bytes`);
    return { id: head.readUInt32LE(4), status: head.readUInt32LE(8), payload: await this.#take(length, timeoutMs) };
  }

  async #take(bytes: number, timeoutMs: number): Promise<Buffer> {
    const timer = setTimeout(() => this.fail(new ReferenceError(`the reference did not answer in ${timeoutMs} ms`)), timeoutMs);
    try {
      while (this.#bytes < bytes) {
        if (this.#error) throw this.#error;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      clearTimeout(timer);
    }
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all.subarray(bytes)];
    this.#bytes = all.length - bytes;
    return all.subarray(0, bytes);
  }
}
