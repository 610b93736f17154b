import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Cluster, type ClusterOptions } from "../../coordinator/src/broker/cluster/cluster.ts";
import { keyFiles } from "../../coordinator/src/broker/cluster/key-files.ts";
import { makeKeys } from "../../coordinator/src/broker/cluster/key-folders.ts";
import type { Settings } from "../../coordinator/src/config.ts";
import { launch, type Launched } from "../../coordinator/src/broker/launch.ts";
import { goneWithin } from "../../coordinator/src/process/stop.ts";
import { freePorts } from "./free-ports.ts";
import { natsServer, use, type BrokerInUse } from "./real-broker.ts";

/** Each server keeps accounts of its own; in pods this is one path on different volumes. */
const RESOLVER = "/data/resolver";

export interface ClusterNode {
  readonly name: string;
  readonly url: string;
  readonly pid: number;
  /** SIGKILL; what it acknowledged stays on disk. */
  kill(): Promise<void>;
  /** On the same port and folder. */
  start(): Promise<void>;
}

export interface NatsCluster extends AsyncDisposable {
  readonly nodes: readonly ClusterNode[];
  /** tls://, comma-separated. */
  readonly url: string;
  /** Folder that `vibeserve keys` wrote. */
  readonly keys: string;
}

export interface ClusterChoice {
  /** What they listen on and are known by. */
  host?: string;
  /** Default always; of one server, to be caught. */
  sync?: (node: number) => string;
}

/** Real nats-servers in operator mode, over TLS, with the files of `vibeserve keys`, as the chart runs them. */
export async function startCluster(
  dir: string,
  size: number,
  { host = "127.0.0.1", sync = () => "always" }: ClusterChoice = {},
): Promise<NatsCluster> {
  const ports = await freePorts(2 * size);
  const clients = ports.slice(0, size);
  const routes = ports.slice(size);
  const advertise = clients.map((port) => `${host}:${port}`);
  const keys = join(dir, "keys");
  const nodeDir = (i: number) => join(dir, `nats-${i}`);
  await makeKeys(keyFiles(keys), { hosts: [host], advertise, resolverDir: RESOLVER });
  const auth = readFileSync(join(keys, "server", "auth.conf"), "utf8");
  const server = join(keys, "server");
  const tls = { cert_file: join(server, "tls.crt"), key_file: join(server, "tls.key"), ca_file: join(server, "ca.crt"), timeout: 5 };
  const conf = (i: number): string => {
    const own = {
      server_name: `nats-${i}`,
      ...{ host, port: clients[i] },
      ports_file_dir: join(nodeDir(i), "ports"),
      jetstream: { store_dir: join(nodeDir(i), "jetstream"), sync_interval: sync(i) },
      tls: { ...tls, ca_file: undefined, handshake_first: true },
      ...(size === 1
        ? {}
        : {
            cluster: { name: "vs", host, port: routes[i], tls, routes: routes.map((port) => `tls://${host}:${port}`), no_advertise: true },
          }),
      ping_interval: "10s",
      log_file: join(nodeDir(i), "nats.log"),
    };
    const lines = Object.entries(own).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
    return [...lines, auth.replace(RESOLVER, join(nodeDir(i), "resolver"))].join("\n");
  };
  const nodes = clients.map((port, i) => clusterNode({ name: `nats-${i}`, url: `tls://${host}:${port}`, dir: nodeDir(i), conf: conf(i) }));
  await Promise.all(nodes.map((node) => node.start()));
  return {
    nodes,
    keys,
    url: nodes.map(({ url }) => url).join(","),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(nodes.map((node) => node.kill()));
    },
  };
}

/** How a coordinator is told of it. */
export const natsOf = ({ url, keys }: NatsCluster): NonNullable<Settings["nats"]> => ({
  servers: url.split(","),
  keysDir: join(keys, "coordinator"),
  replicas: null,
});

/** As `vibeserve up` does. */
export function joinCluster(
  dir: string,
  cluster: NatsCluster,
  { replicas = null, log = () => undefined }: Partial<Pick<ClusterOptions, "replicas" | "log">> = {},
): Promise<Cluster> {
  return Cluster.start({ ...natsOf(cluster), dir: join(dir, "data"), replicas, advertise: null, log });
}

/** A cluster with a coordinator's connection to it; disposing it ends the servers too. */
export async function startClusterBroker(dir: string, size = 3): Promise<BrokerInUse> {
  const servers = await startCluster(dir, size);
  const inUse = await use(await joinCluster(dir, servers));
  return {
    ...inUse,
    [Symbol.asyncDispose]: async () => {
      await inUse[Symbol.asyncDispose]();
      await servers[Symbol.asyncDispose]();
    },
  };
}

function clusterNode({ name, url, dir, conf }: { name: string; url: string; dir: string; conf: string }): ClusterNode {
  let running: Launched | null = null;
  return {
    name,
    url,
    get pid() {
      return running?.identity.pid ?? 0;
    },
    kill: async () => {
      if (!running) return;
      running.child.kill("SIGKILL");
      await goneWithin(running.identity, 5_000);
      running = null;
    },
    start: async () => {
      mkdirSync(dir, { recursive: true });
      const configFile = join(dir, "nats.conf");
      writeFileSync(configFile, conf);
      const files = { portsDir: join(dir, "ports"), errorFile: join(dir, "nats.err"), logFile: join(dir, "nats.log") };
      running = await launch({ binary: natsServer, configFile, ...files, agents: 0 }, () => undefined);
    },
  };
}
