import type { Credential } from "../bus/connect.ts";
import type { AgentPrincipal, Role } from "./principals.ts";
import type { BrokerSettings } from "./settings.ts";

/**
 * What the coordinator needs of its broker, whoever runs it: a server of its own (broker.ts), which reads users from its configuration, or a NATS cluster
 * (cluster/cluster.ts), whose users show claims.
 */
export interface BrokerAccess {
  /** By which this machine dials it; several, comma-separated, where any will do. */
  readonly url: string;
  /** By which nodes dial it. */
  readonly publicUrl: string;
  /** PEM of the authority of its certificate; undefined: no TLS. */
  readonly ca: string | undefined;
  /** base64url of the sha256 of that authority; null: no TLS. */
  readonly fingerprint: string | null;
  /** Folder of who is enrolled. */
  readonly keys: string;
  /** Its process; null: none of ours. */
  readonly pid: number | null;
  readonly settings: BrokerSettings;
  /** How many servers store each message. */
  readonly replicas: number;
  readonly seeds: Readonly<Record<Role, string>>;
  /** What each role shows beside its key's signature. None: the broker knows the keys. */
  readonly claims: Readonly<Partial<Record<Role, string>>>;
  readonly agents: readonly AgentPrincipal[];
  /** Lets an agent in, or widens its pools, on disk and then on the broker. False: the id belongs to another key, or the key is none. */
  enroll(agent: AgentPrincipal): Promise<boolean>;
  /** What an enrolled agent shows beside its key's signature; undefined: the broker knows the key. */
  claimOf(agentId: string): Promise<string | undefined>;
  /** Takes an agent's user away and has its connections closed. Safe to run again. */
  expel(agentId: string): Promise<void>;
  /** Starts what does not store any more anew. Rejects where it can't be done from here. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

/** How this machine logs in as a role. */
export const credentialOf = (broker: BrokerAccess, role: Role): Credential => ({
  ...{ servers: broker.url.split(","), ca: broker.ca, seed: broker.seeds[role], claim: broker.claims[role], principal: role },
});
