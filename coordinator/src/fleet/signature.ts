import { createPublicKey, verify, type KeyObject } from "node:crypto";
import { fromPublic } from "@nats-io/nkeys";
import { canonicalJson } from "@vibeserve/shared";

/** An agent's key is asked for with each of its results; 10,000 agents' are 10 MB. */
const KEYS = new Map<string, KeyObject>();

/**
 * `sig` is the agent's NKey (Ed25519) over canonicalJson(everything but sig), base64. By node:crypto: the client library's own verification is JavaScript and
 * takes milliseconds, which 500 results a second do not have.
 */
export function signedBy(publicKey: string, signed: { sig: string }): boolean {
  const { sig, ...rest } = signed;
  try {
    return verify(null, new TextEncoder().encode(canonicalJson(rest)), keyOf(publicKey), Buffer.from(sig, "base64"));
  } catch {
    // Not base64, not 64 bytes, or no key: no signature.
    return false;
  }
}

function keyOf(publicKey: string): KeyObject {
  const known = KEYS.get(publicKey);
  if (known) return known;
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: rawKey(publicKey) }, format: "jwk" });
  KEYS.set(publicKey, key);
  return key;
}

const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** An NKey in text is base32 of one byte that says its kind, 32 bytes of key and two of checksum (nats-io/nkeys); here as base64url. */
function rawKey(publicKey: string): string {
  // Throws where kind or checksum is wrong.
  fromPublic(publicKey);
  let bits = 0;
  let value = 0;
  const bytes: number[] = [];
  for (const letter of publicKey) {
    value = ((value << 5) | BASE32.indexOf(letter)) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((value >> bits) & 0xff);
    }
  }
  return Buffer.from(bytes.slice(1, 33)).toString("base64url");
}
