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
} from "./permissions.ts";
import { publicKeyOf, type AgentPrincipal, type Principals } from "./principals.ts";

export interface ServerConfigInput {
  principals: Principals;
  storeDir: string;
  /** nats-server writes `nats-server_<pid>.ports` here once it listens. */
  portsDir: string;
  logFile: string;
  /** -1: a random free port. */
  port: number;
  host: string;
  /** PEM of key, certificate and authority; null: plaintext, on this machine only. */
  tlsFile: string | null;
}

/** The coordinator's account: the only one with JetStream. */
const HOME = "VIBESERVE";
const accountOf = (agent: AgentPrincipal) => `AGENT_${agent.agentId}`;

/**
 * nats-server's configuration (its syntax is a superset of JSON). Everything on disk and synced before it is acknowledged: JetStream's default
 * acknowledges before fsync and can lose acknowledged messages when the machine dies. No HTTP monitoring port: settings are read through the
 * system account.
 */
export function serverConfig(input: ServerConfigInput): string {
  const config = {
    server_name: "vibeserve",
    host: input.host,
    port: input.port,
    ports_file_dir: input.portsDir,
    jetstream: { store_dir: input.storeDir, sync_interval: "always", max_memory_store: 64 * 1024 * 1024 },
    accounts: accounts(input.principals),
    system_account: "SYS",
    max_payload: 1024 * 1024,
    // TLS from the first byte: no client reads or sends anything before the certificate is verified.
    ...(input.tlsFile === null ? {} : { tls: { cert_file: input.tlsFile, key_file: input.tlsFile, handshake_first: true, timeout: 5 } }),
    // A peer that is gone is noticed within 3 × 10 s even where TCP is not told.
    ping_interval: "10s",
    ping_max: 2,
    lame_duck_duration: "30s",
    lame_duck_grace_period: "1s",
    log_file: input.logFile,
    logfile_size_limit: 16 * 1024 * 1024,
    logfile_max_num: 3,
  };
  return JSON.stringify(config);
}

function accounts({ seeds, agents }: Principals): Record<string, unknown> {
  const user = (nkey: string, permissions: Permissions) => ({ nkey, permissions });
  const imports = ({ services, streams }: Imports) => [
    ...services.map((s) =>
      typeof s === "string"
        ? { service: { account: HOME, subject: s } }
        : { service: { account: HOME, subject: s.as }, to: s.subject, share: s.share === true },
    ),
    ...streams.map((subject) => ({ stream: { account: HOME, subject } })),
  ];
  return {
    SYS: { users: [{ nkey: publicKeyOf(seeds.system) }] },
    [HOME]: {
      jetstream: "enabled",
      users: [user(publicKeyOf(seeds.coordinator), EVERYTHING)],
      exports: [
        ...EXPORTS.services.map((service) => ({ service })),
        ...EXPORTS.streamingServices.map((service) => ({ service, response_type: "stream" })),
        ...EXPORTS.streams.map((stream) => ({ stream })),
      ],
    },
    CLIENT: { users: [user(publicKeyOf(seeds.client), CLIENT_PERMISSIONS)], imports: imports(CLIENT_IMPORTS) },
    JOIN: {
      users: [user(publicKeyOf(seeds.joiner), JOINER_PERMISSIONS)],
      imports: imports(JOINER_IMPORTS),
      limits: JOINER_LIMITS,
    },
    ...Object.fromEntries(
      agents.map((agent) => [
        accountOf(agent),
        {
          users: [user(agent.publicKey, agentPermissions(agent))],
          imports: imports(agentImports(agent)),
        },
      ]),
    ),
  };
}
