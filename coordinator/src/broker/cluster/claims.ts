import * as jwt from "@nats-io/jwt";
import {
  agentImports,
  agentPermissions,
  CLIENT_IMPORTS,
  CLIENT_PERMISSIONS,
  EVERYTHING,
  EXPORTS,
  JOINER_IMPORTS,
  JOINER_LIMITS,
  JOINER_PERMISSIONS,
  type Imports,
  type Permissions,
} from "../permissions.ts";
import { publicKeyOf, type AgentPrincipal, type Role } from "../principals.ts";
import type { ClusterKeys } from "./keys.ts";

/**
 * permissions.ts as NATS's decentralised claims (docs.nats.io, "JWT authentication"). An account says what its users may do (a scoped signing key), so a user's own
 * claim says only who it is and of which account, and stays good when a release changes what a role may do.
 */
type Account = Partial<jwt.Account> & { limits: jwt.OperatorLimits };

/** Enrolled on a cluster: its account is there. */
export type ClusterAgent = AgentPrincipal & { account: string };

/** Accounts of agents are known by it among others that the same operator may have signed. */
const AGENT_TAG = "vibeserve-agent";

const ANY = -1;
const UNLIMITED = { subs: ANY, data: ANY, payload: ANY } as const;
/** No leaf node: behind one there could be any number of users. */
const LIMITS: jwt.OperatorLimits = { ...UNLIMITED, imports: ANY, exports: ANY, wildcards: true, conn: ANY, leaf: 0 };
const JETSTREAM: jwt.OperatorLimits = { mem_storage: ANY, disk_storage: ANY, streams: ANY, consumer: ANY };

/** What the users of an account may do, whom the signer signs. */
function scope({ signer }: ClusterKeys, role: string, { publish, subscribe }: Permissions): jwt.SigningKey[] {
  const template = { ...UNLIMITED, pub: { allow: publish }, sub: { allow: subscribe }, allowed_connection_types: ["STANDARD" as const] };
  return [{ kind: "user_scope", key: publicKeyOf(signer), role, template }];
}

function imports({ accounts }: ClusterKeys, { services, streams }: Imports): jwt.Import[] {
  const account = accounts.coordinator;
  return [
    ...services.map((s): jwt.Import =>
      typeof s === "string"
        ? { name: s, subject: s, account, type: "service" }
        : { name: s.as, subject: s.as, local_subject: s.subject, account, type: "service", share: s.share === true },
    ),
    ...streams.map((subject): jwt.Import => ({ name: subject, subject, account, type: "stream" })),
  ];
}

const exports = (): jwt.Export[] => [
  ...EXPORTS.services.map((subject) => ({ name: subject, subject, type: "service" as const })),
  ...EXPORTS.streamingServices.map((subject) => ({ name: subject, subject, type: "service" as const, response_type: "Stream" as const })),
  ...EXPORTS.streams.map((subject) => ({ name: subject, subject, type: "stream" as const })),
];

function roleAccount(keys: ClusterKeys, role: Role): Account {
  const { max_connections, max_subscriptions, max_payload } = JOINER_LIMITS;
  switch (role) {
    case "system":
      return { limits: LIMITS, signing_keys: scope(keys, role, EVERYTHING) };
    case "coordinator":
      return { limits: { ...LIMITS, ...JETSTREAM }, signing_keys: scope(keys, role, EVERYTHING), exports: exports() };
    case "client":
      return { limits: LIMITS, signing_keys: scope(keys, role, CLIENT_PERMISSIONS), imports: imports(keys, CLIENT_IMPORTS) };
    case "joiner":
      return {
        limits: { ...LIMITS, conn: max_connections, subs: max_subscriptions, payload: max_payload },
        signing_keys: scope(keys, role, JOINER_PERMISSIONS),
        imports: imports(keys, JOINER_IMPORTS),
      };
  }
}

const signed = (keys: ClusterKeys, name: string, publicKey: string, account: Account): Promise<string> =>
  jwt.encodeAccount(name, publicKey, account, { signer: keys.operator });

export const operatorJwt = (keys: ClusterKeys): Promise<string> =>
  jwt.encodeOperator("vibeserve", keys.operator, { system_account: keys.accounts.system });

export const roleAccountJwt = (keys: ClusterKeys, role: Role): Promise<string> =>
  signed(keys, `vibeserve-${role}`, keys.accounts[role], roleAccount(keys, role));

export const agentAccountJwt = (keys: ClusterKeys, agent: ClusterAgent): Promise<string> =>
  signed(keys, agent.agentId, agent.account, {
    tags: [AGENT_TAG],
    limits: LIMITS,
    signing_keys: scope(keys, "agent", agentPermissions(agent)),
    imports: imports(keys, agentImports(agent)),
  });

/**
 * An account that nobody can log in to any more: it has no signing key, all its users are revoked, and it may have no connection. The newer of two claims of an
 * account wins on every server (nats-server, DirJWTStore), so this one also beats the old one of a server that was away, which a deletion would not.
 */
export const closedAccountJwt = (keys: ClusterKeys, account: string): Promise<string> =>
  signed(keys, "closed", account, {
    tags: [AGENT_TAG],
    limits: { ...LIMITS, conn: 0, imports: 0, exports: 0 },
    revocations: { "*": Math.floor(Date.now() / 1000) },
  });

/** Request to take accounts away. */
export const deletionJwt = (keys: ClusterKeys, accounts: readonly string[]): Promise<string> =>
  jwt.encodeGeneric("delete", keys.operator, "generic", { accounts });

/** Who holds the key `publicKey` is a user of `account`. */
export const userJwt = (keys: ClusterKeys, name: string, publicKey: string, account: string): Promise<string> =>
  jwt.encodeUser(name, publicKey, account, {}, { signer: keys.signer, scopedUser: true });

export const roleJwt = (keys: ClusterKeys, role: Role): Promise<string> =>
  userJwt(keys, role, publicKeyOf(keys.seeds[role]), keys.accounts[role]);

/** Is this an agent's account that this operator made? Throws where it is no claim. */
export function isAgentsAccount(keys: ClusterKeys, claim: string): boolean {
  const { iss, nats } = jwt.decode<jwt.Account>(claim);
  return iss === publicKeyOf(keys.operator) && (nats.tags ?? []).includes(AGENT_TAG);
}
