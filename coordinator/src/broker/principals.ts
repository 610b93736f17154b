import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createUser, fromPublic } from "@nats-io/nkeys";
import { Id, nkeyOf } from "@vibeserve/shared";
import { z } from "zod";

/** Who may connect to the broker. `system` sees the server's own settings and nothing of the product; `joiner` may ask to come in. */
export const ROLES = ["system", "coordinator", "client", "joiner"] as const;
export type Role = (typeof ROLES)[number];

/**
 * An agent's user: the broker knows its public key only. enrolledAt: absent where an older release enrolled it. account: public key of its account on a cluster;
 * absent elsewhere.
 */
export const AgentPrincipal = z.strictObject({
  agentId: Id,
  publicKey: z.string(),
  pools: z.array(Id).min(1),
  enrolledAt: z.int().optional(),
  account: z.string().optional(),
});
export type AgentPrincipal = z.infer<typeof AgentPrincipal>;

const AgentList = z.strictObject({ v: z.literal(1), agents: z.array(AgentPrincipal) });

export interface Principals {
  /** NKey seeds of the roles. */
  seeds: Record<Role, string>;
  agents: readonly AgentPrincipal[];
}

/** Reads the keys in `dir`, generating once what is missing. Seeds are files of mode 0600 in a folder of mode 0700. */
export function loadPrincipals(dir: string): Principals {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  chmodSync(dir, 0o700);
  const seeds = {
    system: loadSeed(join(dir, "system.nk")),
    coordinator: loadSeed(join(dir, "coordinator.nk")),
    client: loadSeed(join(dir, "client.nk")),
    joiner: loadSeed(join(dir, "joiner.nk")),
  };
  return { seeds, agents: loadAgents(dir) };
}

export function saveAgents(dir: string, agents: readonly AgentPrincipal[]): void {
  writePrivate(join(dir, "agents.json"), JSON.stringify({ v: 1, agents }, null, 2));
}

/** The seed in `path`, generated on first use. */
export function loadSeed(path: string): string {
  if (!existsSync(path)) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writePrivate(path, new TextDecoder().decode(createUser().getSeed()));
  }
  chmodSync(path, 0o600);
  return readFileSync(path, "utf8").trim();
}

/** The agents with this one among them, its pools widened where it was there; `agents` itself where nothing changes. Null: the id belongs to another key, or the key to another or is none. */
export function admitted<A extends AgentPrincipal>(
  agents: readonly A[],
  seeds: Principals["seeds"],
  agent: AgentPrincipal,
): readonly (A | AgentPrincipal)[] | null {
  if (!isUserKey(agent.publicKey)) return null;
  const known = agents.find((a) => a.agentId === agent.agentId);
  if (known && known.publicKey !== agent.publicKey) return null;
  const owner = agents.find((a) => a.publicKey === agent.publicKey);
  if (owner && owner.agentId !== agent.agentId) return null;
  if (Object.values(seeds).some((seed) => publicKeyOf(seed) === agent.publicKey)) return null;
  const pools = [...new Set([...(known?.pools ?? []), ...agent.pools])];
  return known && pools.length === known.pools.length ? agents : [...agents.filter((a) => a !== known), { ...agent, ...known, pools }];
}

/** A server refuses its whole configuration for one key that is none. */
export function isUserKey(publicKey: string): boolean {
  try {
    return fromPublic(publicKey).getPublicKey().startsWith("U");
  } catch {
    return false;
  }
}

export function publicKeyOf(seed: string): string {
  return nkeyOf(seed).publicKey;
}

/** Written aside, synced and renamed, so that a reader never sees half a file, after a power cut neither. */
export function writePrivate(path: string, text: string): void {
  const draft = `${path}.${process.pid}.draft`;
  writeFileSync(draft, text, { mode: 0o600, flush: true });
  renameSync(draft, path);
}

export function loadAgents(dir: string): AgentPrincipal[] {
  const path = join(dir, "agents.json");
  if (!existsSync(path)) return [];
  return AgentList.parse(JSON.parse(readFileSync(path, "utf8"))).agents;
}
