import { fork } from "node:child_process";
import { mkdirSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { createUser } from "@nats-io/nkeys";
import { Broker } from "../../broker/broker.ts";
import { loadPrincipals, publicKeyOf, saveAgents } from "../../broker/principals.ts";
import { connectBus } from "../../bus/connect.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { childEnvironment, type Settings } from "../../config.ts";
import { AgentRegistry } from "../../fleet/agent-registry.ts";
import { eventLogger, openLog } from "../../process/log-file.ts";
import { within, type LaneSite } from "../lane.ts";

export const POOL = "crowd";

export interface Crowd extends LaneSite {
  registry: AgentRegistry;
  publicKeyOf: (agentId: string) => string | null;
  agents: number;
}

interface Member {
  agentId: string;
  publicKey: string;
  seed: string;
}

/** A broker that knows these agents, with this process as its coordinator. It goes with `own`. */
export async function openSite(
  settings: Settings,
  members: readonly Member[],
  signal: AbortSignal,
  own: AsyncDisposableStack,
): Promise<LaneSite> {
  const log = eventLogger(openLog(settings.data, "bench", settings.logLevel));
  const dir = join(settings.data, "nats");
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const keys = join(dir, "keys");
  loadPrincipals(keys);
  saveAgents(
    keys,
    members.map(({ agentId, publicKey }) => ({ agentId, publicKey, pools: [POOL] })),
  );
  const logFile = join(settings.data, "logs", "nats.log");
  const broker = await Broker.start({ binary: settings.natsServer, dir, logFile, host: "127.0.0.1", port: -1, log });
  own.defer(() => broker.close());
  const nc = await connectBus({ servers: [broker.url], seed: broker.seeds.coordinator, principal: "coordinator" });
  own.defer(() => nc.close());
  const [js, jsm] = [jetstream(nc), await jetstreamManager(nc)];
  await ensureStreams(jsm);
  return { broker, nc, js, jsm, settings, log, signal, own };
}

/** A broker with `agents` agents enrolled, connected and registered, in a process of their own; this process is the coordinator. All of it goes with `own`. */
export async function openCrowd(settings: Settings, agents: number, signal: AbortSignal, own: AsyncDisposableStack): Promise<Crowd> {
  const members = Array.from({ length: agents }, (_, i) => {
    const seed = new TextDecoder().decode(createUser().getSeed());
    return { agentId: `crowd-${i}`, publicKey: publicKeyOf(seed), seed };
  });
  const site = await openSite(settings, members, signal, own);
  const { broker, nc, js, log } = site;
  const known = new Map(members.map((m) => [m.agentId, { publicKey: m.publicKey, pools: [POOL] }]));
  const registry = own.use(await AgentRegistry.open({ nc, js, enrolled: (id) => known.get(id) ?? null, log }));
  const file = join(settings.data, "crowd.json");
  writeFileSync(file, JSON.stringify(members), { mode: 0o600 });
  const err = openSync(join(settings.data, "logs", "crowd.err"), "w");
  const child = fork(join(import.meta.dirname, "crowd-child.ts"), [broker.url, file, POOL], {
    env: childEnvironment({}),
    stdio: ["ignore", err, err, "ipc"],
  });
  own.defer(() => void child.kill("SIGKILL"));
  const ready = new Promise<void>((resolve, reject) => {
    child.once("message", () => resolve());
    child.once("exit", (code) => reject(new Error(`the crowd ended with ${code}`)));
  });
  const registered = new Promise<void>((resolve) => registry.onChange(() => (registry.list().length === agents ? resolve() : undefined)));
  await within(Promise.all([ready, registered]), `${agents} agents register`, signal);
  return {
    ...{ ...site, registry, agents },
    publicKeyOf: (id) => known.get(id)?.publicKey ?? null,
  };
}
