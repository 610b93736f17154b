import { createHmac, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import type { SequenceScores } from "../reference-protocol.ts";
import { DEPTHS, type Depth } from "./sequence.ts";

/** A sequence with what the reference says at its scored positions. */
export interface ScoredSequence {
  /** `<depth>-<index>`, unique in its pool. */
  readonly name: string;
  readonly depth: Depth;
  readonly kind: string;
  readonly tokens: readonly number[];
  readonly scores: SequenceScores;
}

const Header = z.strictObject({
  name: z.string().max(64),
  depth: z.enum(DEPTHS),
  kind: z.string().max(64),
  tokens: z.array(z.int().min(0)).max(65_536),
  from: z.int().min(0),
  positions: z.int().min(1),
  top: z.int().min(1),
});
const MAC_BYTES = 32;
const MAX_HEADER_BYTES = 1 << 20;

const mac = (key: string, body: Uint8Array): Buffer => createHmac("sha256", key).update(body).digest();

/** Bytes of a record: HMAC, header length, JSON header, ids, log-probabilities, those of the next tokens. */
export function encodeRecord(s: ScoredSequence, key: string): Buffer {
  const { from, positions, top } = s.scores;
  const header = Buffer.from(JSON.stringify({ name: s.name, depth: s.depth, kind: s.kind, tokens: s.tokens, from, positions, top }));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(header.length);
  const raw = (a: Int32Array | Float32Array): Buffer => Buffer.from(a.buffer, a.byteOffset, a.byteLength);
  const body = Buffer.concat([size, header, raw(s.scores.ids), raw(s.scores.logprobs), raw(s.scores.next)]);
  return Buffer.concat([mac(key, body), body]);
}

/** The record if it is whole and was written under this key, else null. */
export function decodeRecord(bytes: Buffer, key: string): ScoredSequence | null {
  if (bytes.length < MAC_BYTES + 4) return null;
  const body = bytes.subarray(MAC_BYTES);
  if (!timingSafeEqual(bytes.subarray(0, MAC_BYTES), mac(key, body))) return null;
  const headerBytes = body.readUInt32LE(0);
  if (headerBytes > MAX_HEADER_BYTES) return null;
  const h = Header.parse(JSON.parse(body.subarray(4, 4 + headerBytes).toString("utf8")));
  const data = Uint8Array.from(body.subarray(4 + headerBytes)).buffer;
  const n = h.positions * h.top;
  if (data.byteLength !== 4 * (2 * n + h.positions)) return null;
  return {
    name: h.name,
    depth: h.depth,
    kind: h.kind,
    tokens: h.tokens,
    scores: {
      from: h.from,
      positions: h.positions,
      top: h.top,
      ids: new Int32Array(data, 0, n),
      logprobs: new Float32Array(data, 4 * n, n),
      next: new Float32Array(data, 8 * n, h.positions),
      extras: new Float32Array(),
    },
  };
}
