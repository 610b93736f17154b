import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { createUser } from "@nats-io/nkeys";
import { canonicalJson, nkeyOf } from "@vibeserve/shared";

/** The agent's NKey: with it the agent logs in to the broker and signs what it reports. The seed never leaves the agent's private folder. */
export interface Identity {
  readonly publicKey: string;
  readonly seed: string;
  /** base64 of the signature over canonicalJson(value). */
  sign(value: unknown): string;
}

/** Reads the seed, made on first use, mode 0600. Throws where the file holds something else. */
export async function loadIdentity(seedFile: string): Promise<Identity> {
  if (!existsSync(seedFile)) {
    await mkdir(dirname(seedFile), { recursive: true, mode: 0o700 });
    const draft = `${seedFile}.${process.pid}.draft`;
    await writeFile(draft, createUser().getSeed(), { mode: 0o600 });
    await rename(draft, seedFile);
  }
  await chmod(seedFile, 0o600);
  const seed = (await readFile(seedFile, "utf8")).trim();
  const key = nkeyOf(seed);
  return {
    publicKey: key.publicKey,
    seed,
    sign: (value) => key.sign(new TextEncoder().encode(canonicalJson(value))),
  };
}
