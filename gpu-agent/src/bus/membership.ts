import { existsSync, readFileSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { join as joinPath } from "node:path";
import { Id, issuesOf, UserClaim, type AgentInfo, type JoinLine, type JoinProof } from "@vibeserve/shared";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { ConfigError, type AgentConfig } from "../config.ts";
import type { Identity } from "./identity.ts";
import { join, type JoinDeps } from "./join.ts";
import { fetchPinnedCa } from "./pinned-ca.ts";

/** `<data>/membership.json`, mode 0600, beside the key: the coordinator that this agent belongs to, so that a line is needed once. */
export const Membership = z.strictObject({
  v: z.literal(1),
  kind: z.literal("membership"),
  servers: z.array(z.string()).min(1),
  /** PEM of the pinned authority; null: no TLS. */
  ca: z.string().nullable(),
  /** NKey seed of role `joiner`, to ask how it stands when it is turned away; null: it was enrolled without a line. */
  joiner: z.string().nullable(),
  /** The joiner's claim on a cluster. Absent: its broker needs none. */
  joinerClaim: UserClaim.optional(),
  /** This agent's own claim on a cluster, shown with its key. Absent: its broker knows the key itself. */
  claim: UserClaim.optional(),
  /** Where it is to work; null: as it names itself. */
  pools: z.array(Id).nullable(),
});
export type Membership = z.infer<typeof Membership>;

export interface MembershipDeps {
  config: Pick<AgentConfig, "data" | "servers" | "ca" | "claim" | "join" | "serviceAccountToken">;
  info: AgentInfo;
  identity: Identity;
  log: JoinDeps["log"];
}

const REDIAL_MS = 2_000;

/**
 * Which coordinator this agent belongs to: the servers it was told, else the one that a join line leads to, which it asks to come in, else the one it joined before,
 * else one on this machine. Throws ConfigError, RefusedError or PlaintextError.
 */
export async function findMembership({ config, info, identity, log }: MembershipDeps): Promise<Membership> {
  const file = joinPath(config.data, "membership.json");
  const own = { v: 1 as const, kind: "membership" as const, joiner: null, pools: null };
  if (config.servers !== null) {
    const ca = config.ca === null ? null : read(config.ca);
    return { ...own, servers: config.servers, ca, claim: config.claim === null ? undefined : read(config.claim).trim() };
  }
  if (config.join === null) return existsSync(file) ? parse(file) : { ...own, servers: ["nats://127.0.0.1:4222"], ca: null };
  const { servers, joiner, fingerprint } = config.join;
  const joinerClaim = config.join.claim ?? undefined;
  const ca = fingerprint === null ? null : await pinned(servers, fingerprint, log);
  const proof = proofOf(config.join, config.serviceAccountToken);
  const { pools, claim } = await join({ servers, ca, joiner, claim: joinerClaim, info, identity, proof, log });
  const membership: Membership = { ...own, servers, ca, joiner, joinerClaim, claim, pools };
  await writeFile(`${file}.draft`, JSON.stringify(membership, null, 2), { mode: 0o600, flush: true });
  await rename(`${file}.draft`, file);
  log.info({ servers: membership.servers, pools }, "joined");
  return membership;
}

/** Asks why it is turned away. Returns where it is in after all; throws RefusedError. */
export async function askStanding(
  { servers, ca, joiner, joinerClaim: claim }: Membership,
  deps: Omit<MembershipDeps, "config">,
): Promise<void> {
  if (joiner !== null) await join({ ...deps, servers, ca, joiner, claim, proof: () => ({ kind: "none" }) });
}

function proofOf({ token }: JoinLine, serviceAccountToken: string | null): () => JoinProof {
  if (token !== null) return () => ({ kind: "token", token });
  if (serviceAccountToken === null)
    throw new ConfigError("gpu-agent: this join line is for service accounts: name their token with --service-account-token FILE");
  return () => ({ kind: "service-account", jwt: read(serviceAccountToken).trim() });
}

/** From any of them that answers. */
async function pinned(servers: readonly string[], fingerprint: string, log: JoinDeps["log"]): Promise<string> {
  let said = "";
  for (let tries = 0; ; tries++) {
    const server = servers[tries % servers.length] ?? "";
    try {
      return await fetchPinnedCa(server, fingerprint);
    } catch (error) {
      if (error instanceof ConfigError || !(error instanceof Error)) throw error;
      if (error.message !== said) log.warn({ why: error.message, server }, "the broker can't be reached; redialling");
      said = error.message;
      await sleep(REDIAL_MS * (1 + Math.random()));
    }
  }
}

function parse(file: string): Membership {
  const parsed = Membership.safeParse(JSON.parse(read(file)));
  if (parsed.success) return parsed.data;
  throw new ConfigError(`gpu-agent: ${file}: ${issuesOf(parsed.error)}; join again with a new line`);
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new ConfigError(`gpu-agent: ${error instanceof Error ? error.message : String(error)}`);
  }
}
