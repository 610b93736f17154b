import { createPrivateKey, createPublicKey, sign, verify, type KeyObject } from "node:crypto";

/**
 * NKeys (nats-io/nkeys): Ed25519 keys written in base32 with a prefix that says their kind and a checksum. The client library makes them; it computes in JavaScript,
 * which takes 6 to 9 ms for a signature or a public key. Here node:crypto does that in 0.1 ms, which 500 results a second need.
 */
export interface NKey {
  /** "U…" for a user. */
  readonly publicKey: string;
  /** base64 of the signature. */
  sign(bytes: Uint8Array): string;
}

/** The key of a seed ("S…"). Throws on anything else. */
export function nkeyOf(seed: string): NKey {
  const bytes = checked(seed, 36);
  const [first = 0, second = 0] = bytes;
  if ((first & 0xf8) !== SEED_PREFIX) throw new Error("not the seed of an NKey");
  const der = Buffer.concat([PKCS8_HEAD, bytes.subarray(2, 34)]);
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const { x } = createPublicKey(key).export({ format: "jwk" });
  const kind = ((first & 7) << 5) | ((second & 0xf8) >> 3);
  const publicKey = written(Buffer.concat([Buffer.from([kind]), Buffer.from(x ?? "", "base64url")]));
  return { publicKey, sign: (message) => sign(null, message, key).toString("base64") };
}

/** Is `signature` (base64) that of `publicKey` over `bytes`? False too where either is none. */
export function verifyNkey(publicKey: string, bytes: Uint8Array, signature: string): boolean {
  try {
    return verify(null, bytes, verifyingKey(publicKey), Buffer.from(signature, "base64"));
  } catch {
    return false;
  }
}

const SEED_PREFIX = 18 << 3;
/** PKCS #8 of an Ed25519 seed (RFC 8410): a fixed head and the 32 bytes. */
const PKCS8_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** An agent's key is asked for with each of its results. */
const KEYS = new Map<string, KeyObject>();
const MAX_KEYS = 20_000;

function verifyingKey(publicKey: string): KeyObject {
  const known = KEYS.get(publicKey);
  if (known) return known;
  const x = checked(publicKey, 35).subarray(1, 33).toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  if (KEYS.size >= MAX_KEYS) KEYS.clear();
  KEYS.set(publicKey, key);
  return key;
}

/** Bytes of a key in text, its checksum verified. */
function checked(text: string, length: number): Buffer {
  const letters = Math.ceil((length * 8) / 5);
  if (text.length !== letters) throw new Error(`an NKey of this kind has ${letters} letters, this one has ${text.length}`);
  const bytes = fromBase32(text);
  if (bytes.readUInt16LE(length - 2) !== crc16(bytes.subarray(0, -2))) throw new Error("the checksum of an NKey is wrong");
  return bytes;
}

function written(bytes: Buffer): string {
  const sum = Buffer.alloc(2);
  sum.writeUInt16LE(crc16(bytes));
  return toBase32(Buffer.concat([bytes, sum]));
}

/** CRC-16/XMODEM. */
function crc16(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  }
  return crc;
}

/** RFC 4648 without padding. */
function fromBase32(text: string): Buffer {
  const bytes: number[] = [];
  let value = 0;
  let bits = 0;
  for (const letter of text) {
    const digit = LETTERS.indexOf(letter);
    if (digit < 0) throw new Error(`"${letter}" is no letter of base32`);
    value = ((value << 5) | digit) & 0xfff;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push((value >> bits) & 0xff);
  }
  return Buffer.from(bytes);
}

function toBase32(bytes: Uint8Array): string {
  let text = "";
  let value = 0;
  let bits = 0;
  for (const byte of bytes) {
    value = ((value << 8) | byte) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += LETTERS[(value >> bits) & 31] ?? "";
    }
  }
  return bits > 0 ? text + (LETTERS[(value << (5 - bits)) & 31] ?? "") : text;
}
