import { isIP } from "node:net";
import { brokerUrl, formatJoinLine, type ClientContext } from "@vibeserve/shared";
import { ConfigError } from "../../config.ts";
import { ROLES } from "../principals.ts";
import { operatorJwt, roleAccountJwt, roleJwt } from "./claims.ts";
import { caOf, newClusterKeys, parseClusterKeys, pinOf, type ClusterKeys } from "./keys.ts";

/**
 * What `vibeserve keys` makes, and where each part goes.
 *   server       auth.conf, tls.crt, tls.key, ca.crt   the nats-servers
 *   coordinator  keys.json                             the coordinator: VIBESERVE_NATS_KEYS
 *   join         line                                  agents that prove a service account: no token in it
 *   client       client.json                           people: ~/.config/vibeserve/contexts/NAME.json
 * All of it follows from keys.json, so what is missing is made again, and what is there is never written.
 */
export type KeyFolder = "coordinator" | "server" | "client" | "join";
/** Contents by file name. */
export type KeyFiles = Record<string, string>;

export interface KeyStore {
  /** Of a folder; null: it is not there. */
  read(folder: KeyFolder): Promise<KeyFiles | null>;
  /** Makes a folder that is not there. Throws where it is by now. */
  create(folder: KeyFolder, files: KeyFiles): Promise<void>;
  /** Its name for people. */
  nameOf(folder: KeyFolder): string;
}

export interface KeyOptions {
  /** Names and addresses of the servers, HOST or HOST:PORT; null: as before, or this machine. */
  hosts: readonly string[] | null;
  /** HOST:PORT that nodes and people dial; null: as before, or the hosts. */
  advertise: readonly string[] | null;
  /** Where the nats-servers keep accounts. */
  resolverDir: string;
}

const DERIVED = ["server", "client", "join"] as const;
const PORT = 4222;
/** Servers compare what accounts they have this often. */
const SYNC_INTERVAL = "30s";

/** Makes what is missing. Returns which folders those were. Throws ConfigError, or what the store throws. */
export async function makeKeys(store: KeyStore, options: KeyOptions): Promise<{ keys: ClusterKeys; made: KeyFolder[] }> {
  const there = new Map<KeyFolder, KeyFiles | null>();
  for (const folder of ["coordinator", ...DERIVED] as const) there.set(folder, await store.read(folder));
  const known = there.get("coordinator");
  const orphan = DERIVED.find((folder) => there.get(folder));
  if (!known && orphan)
    throw new ConfigError(
      `${store.nameOf(orphan)} is there and ${store.nameOf("coordinator")} is not: they belong together; bring it back, or remove ${DERIVED.map((folder) => store.nameOf(folder)).join(", ")} and all servers' accounts to begin anew`,
    );
  const keys = known ? parseClusterKeys(known["keys.json"] ?? "", store.nameOf("coordinator")) : await newKeys(options);
  const made: KeyFolder[] = [];
  const make = async (folder: KeyFolder, files: () => KeyFiles | Promise<KeyFiles>) => {
    if (there.get(folder)) return;
    await store.create(folder, await files());
    made.push(folder);
  };
  await make("coordinator", () => ({ "keys.json": `${JSON.stringify(keys, null, 2)}\n` }));
  await make("server", () => serverFiles(keys, options));
  await make("client", async () => ({ "client.json": `${JSON.stringify(await clientContext(keys), null, 2)}\n` }));
  await make("join", async () => ({ line: `${await accountLine(keys)}\n` }));
  return { keys, made };
}

async function newKeys({ hosts, advertise }: KeyOptions): Promise<ClusterKeys> {
  const names = hosts ?? ["localhost"];
  const { makeAuthority } = await import("../own-authority.ts");
  const servers = (advertise ?? names).map(urlOf);
  return newClusterKeys({ authority: await makeAuthority(), hosts: certified(names, servers), servers });
}

/** Also what is dialled from inside a server's pod or machine. */
const certified = (names: readonly string[], servers: readonly string[]): string[] => [
  ...new Set([...[...names, ...servers.map((url) => url.replace("tls://", ""))].map(hostOf), "localhost", "127.0.0.1", "::1"]),
];

async function serverFiles(keys: ClusterKeys, { hosts, advertise, resolverDir }: KeyOptions): Promise<KeyFiles> {
  const { makeCertificate } = await import("../own-authority.ts");
  const names = hosts === null && advertise === null ? keys.hosts : certified(hosts ?? keys.hosts, (advertise ?? keys.servers).map(urlOf));
  const pem = await makeCertificate(keys.authority, names, { peers: true });
  const certificates = pem.indexOf("-----BEGIN CERTIFICATE-----");
  return {
    "auth.conf": await authConf(keys, resolverDir),
    "tls.key": pem.slice(0, certificates),
    // The authority too: nodes take it from here and compare it with their line.
    "tls.crt": pem.slice(certificates),
    "ca.crt": caOf(keys),
  };
}

/**
 * nats-server's operator mode. The accounts here are for the first start; afterwards the coordinator's are newer. Everything else (TLS, JetStream's
 * `sync_interval: always`, routes) is in the file that includes this one.
 */
async function authConf(keys: ClusterKeys, dir: string): Promise<string> {
  const preload = await Promise.all(ROLES.map(async (role) => `  ${keys.accounts[role]}: ${await roleAccountJwt(keys, role)}`));
  return [
    `operator: ${await operatorJwt(keys)}`,
    `system_account: ${keys.accounts.system}`,
    `resolver: { type: full, dir: ${JSON.stringify(dir)}, allow_delete: true, interval: "${SYNC_INTERVAL}" }`,
    "resolver_preload: {",
    ...preload,
    "}",
    "",
  ].join("\n");
}

async function clientContext(keys: ClusterKeys): Promise<ClientContext> {
  const { servers, seeds } = keys;
  return {
    ...{ v: 1, kind: "client", servers, seed: seeds.client, claim: await roleJwt(keys, "client"), ca: caOf(keys) },
    ...{ pid: 0, startedAt: Date.now() },
  };
}

const accountLine = async (keys: ClusterKeys): Promise<string> =>
  formatJoinLine({
    servers: keys.servers,
    token: null,
    joiner: keys.seeds.joiner,
    fingerprint: pinOf(keys),
    claim: await roleJwt(keys, "joiner"),
  });

/** HOST, HOST:PORT, IPv6 or [IPv6]:PORT. Throws ConfigError. */
function split(text: string): { host: string; port: number } {
  if (isIP(text) === 6) return { host: text, port: PORT };
  const [, host, port] = /^\[?([A-Za-z0-9*._-]+|[0-9a-fA-F:]+)\]?(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (host === undefined) throw new ConfigError(`${JSON.stringify(text)} is not HOST or HOST:PORT`);
  return { host, port: port === undefined ? PORT : Number(port) };
}

const hostOf = (text: string): string => split(text).host;

/** tls://HOST:PORT of HOST or HOST:PORT. Throws ConfigError. */
export const urlOf = (text: string): string => {
  const { host, port } = split(text.replace("tls://", ""));
  return brokerUrl(true, host, port);
};
