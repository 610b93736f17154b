import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createAccount, createOperator, createUser, type KeyPair } from "@nats-io/nkeys";
import { issuesOf } from "@vibeserve/shared";
import { z } from "zod";
import { ConfigError } from "../../config.ts";
import { BrokerStartError } from "../launch.ts";
import { certificateIn, fingerprintOf } from "../tls.ts";

const perRole = (pattern: RegExp) => {
  const key = z.string().regex(pattern);
  return z.strictObject({ system: key, coordinator: key, client: key, joiner: key });
};

/**
 * Everything that a coordinator needs of a NATS cluster in operator mode, in one file (`keys.json`): who has it may do everything there. All else that
 * `vibeserve keys` writes is derived from it. Accounts' own seeds are thrown away: the operator signs accounts, the signer signs users.
 */
export const ClusterKeys = z.strictObject({
  v: z.literal(1),
  kind: z.literal("cluster-keys"),
  /** Seed of the operator: signs every account. */
  operator: z.string().regex(/^SO[A-Z2-7]{56}$/),
  /** Seed of the key that signs the users of every account; what a user may do stands in its account, so a release changes it without new users. */
  signer: z.string().regex(/^SA[A-Z2-7]{56}$/),
  /** Public keys of the accounts. */
  accounts: perRole(/^A[A-Z2-7]{55}$/),
  /** Seeds of the roles' users. */
  seeds: perRole(/^SU[A-Z2-7]{56}$/),
  /** PEM of the authority's key and certificate: signs the servers' certificate. */
  authority: z.string().includes("-----BEGIN CERTIFICATE-----"),
  /** Names and addresses in the servers' certificate. */
  hosts: z.array(z.string().min(1)).min(1),
  /** tls://HOST:PORT that nodes and people dial, any of which will do. */
  servers: z.array(z.string().startsWith("tls://")).min(1),
});
export type ClusterKeys = z.infer<typeof ClusterKeys>;

const seedOf = (pair: KeyPair): string => new TextDecoder().decode(pair.getSeed());

/** authority: PEM of its key and certificate. */
export function newClusterKeys(of: Pick<ClusterKeys, "authority" | "hosts" | "servers">): ClusterKeys {
  const each = (make: () => string) => ({ system: make(), coordinator: make(), client: make(), joiner: make() });
  return {
    ...{ v: 1, kind: "cluster-keys", operator: seedOf(createOperator()), signer: seedOf(createAccount()) },
    accounts: each(() => createAccount().getPublicKey()),
    seeds: each(() => seedOf(createUser())),
    ...of,
  };
}

/** PEM of the authority's certificate, which is no secret. */
export const caOf = ({ authority }: Pick<ClusterKeys, "authority">): string => certificateIn(authority);

/** base64url of the sha256 of the authority's certificate. */
export const pinOf = (keys: Pick<ClusterKeys, "authority">): string => fingerprintOf(caOf(keys));

/** Throws ConfigError where they are not what `vibeserve keys` writes. */
export function parseClusterKeys(text: string, where: string): ClusterKeys {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // Its text is secret, and a parser's message quotes it.
    throw new ConfigError(`${where} is not JSON; it is what "vibeserve keys" wrote, whole`);
  }
  const parsed = ClusterKeys.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new ConfigError(`${where}: ${issuesOf(parsed.error)}; it is what "vibeserve keys" wrote, whole`);
}

/** Of the folder `coordinator` that `vibeserve keys` wrote. Throws ConfigError or BrokerStartError. */
export function readClusterKeys(dir: string): ClusterKeys {
  const file = join(dir, "keys.json");
  if (!existsSync(file))
    throw new BrokerStartError(`VIBESERVE_NATS_KEYS: there is no ${file}; "vibeserve keys" makes it (its folder coordinator)`);
  return parseClusterKeys(readFileSync(file, "utf8"), file);
}
