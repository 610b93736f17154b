import { canonicalJson, verifyNkey } from "@vibeserve/shared";

/** `sig` is the agent's NKey over canonicalJson(everything but sig), base64. */
export function signedBy(publicKey: string, signed: { sig: string }): boolean {
  const { sig, ...rest } = signed;
  return verifyNkey(publicKey, new TextEncoder().encode(canonicalJson(rest)), sig);
}
