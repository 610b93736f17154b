import { createUser, fromPublic, fromSeed } from "@nats-io/nkeys";
import { nkeyOf, verifyNkey } from "@vibeserve/shared";
import { expect, test } from "vitest";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const message = new TextEncoder().encode("what was measured");

test("a key says and signs the same as the NATS library's, either way round", () => {
  for (let i = 0; i < 20; i++) {
    const pair = createUser();
    const key = nkeyOf(text(pair.getSeed()));
    expect(key.publicKey).toBe(pair.getPublicKey());
    expect(fromPublic(key.publicKey).verify(message, Buffer.from(key.sign(message), "base64"))).toBe(true);
    const signature = Buffer.from(fromSeed(pair.getSeed()).sign(message)).toString("base64");
    expect(verifyNkey(key.publicKey, message, signature)).toBe(true);
    expect(verifyNkey(nkeyOf(text(createUser().getSeed())).publicKey, message, signature)).toBe(false);
    expect(verifyNkey(key.publicKey, Buffer.concat([message, message]), signature)).toBe(false);
  }
});

test("what is no key is refused, and verifies nothing", () => {
  const seed = text(createUser().getSeed());
  const { publicKey } = nkeyOf(seed);
  const other = (c: string | undefined) => (c === "A" ? "B" : "A");
  const wrong = seed.slice(0, 20) + other(seed[20]) + seed.slice(21);
  for (const bad of ["", "S", publicKey, wrong, `${seed}A`, seed.toLowerCase()])
    expect(() => nkeyOf(bad), bad.slice(0, 3)).toThrow(/NKey|base32/);
  const signature = nkeyOf(seed).sign(message);
  expect(verifyNkey(publicKey, message, signature)).toBe(true);
  for (const bad of ["", seed, publicKey.slice(1)]) expect(verifyNkey(bad, message, signature)).toBe(false);
  expect(verifyNkey(publicKey, message, "no signature")).toBe(false);
});
