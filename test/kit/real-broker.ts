import { join } from "node:path";
import { jetstream, jetstreamManager, type JetStreamClient, type JetStreamManager } from "@nats-io/jetstream";
import { createUser } from "@nats-io/nkeys";
import type { NatsConnection } from "@nats-io/transport-node";
import { chunkSubject, nameSubject, objectName } from "@vibeserve/shared";
import { ArtifactIntake } from "../../coordinator/src/artifact/artifact-intake.ts";
import { Broker } from "../../coordinator/src/broker/broker.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { ensureStreams } from "../../coordinator/src/bus/streams.ts";

/** The server that the product's set-up puts into its cache; tests use the same one. */
export const { natsServer } = loadSettings({});

export const POOL = "test";

export interface Bus {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
}

export interface RealBroker extends AsyncDisposable {
  broker: Broker;
  /** The coordinator's connection, streams made. */
  bus: Bus;
  /** What the supervisor reported, in order. */
  reports: { event: string; facts: Record<string, unknown> }[];
  /** Resolves when the supervisor reports this event (again). */
  reported(event: string): Promise<void>;
  enroll(agentId: string, pools?: string[]): Promise<string>;
  connectAgent(agentId: string, seed: string): Promise<NatsConnection>;
  connectClient(): Promise<NatsConnection>;
  connectJoiner(): Promise<NatsConnection>;
}

/** A supervised nats-server in `dir`, as `vibeserve up` runs it. */
export async function startBroker(dir: string): Promise<RealBroker> {
  const reports: RealBroker["reports"] = [];
  const waiting: { event: string; resolve: () => void }[] = [];
  const broker = await Broker.start({
    binary: natsServer,
    dir: join(dir, "nats"),
    logFile: join(dir, "nats.log"),
    host: "127.0.0.1",
    port: -1,
    log: (event, facts) => {
      reports.push({ event, facts });
      for (const w of waiting.filter((x) => x.event === event)) w.resolve();
    },
  });
  const open: NatsConnection[] = [];
  const dial = async (principal: string, seed: string) => {
    const nc = await connectBus({ servers: [broker.url], seed, principal });
    open.push(nc);
    return nc;
  };
  const nc = await dial("coordinator", broker.seeds.coordinator);
  const bus = { nc, js: jetstream(nc), jsm: await jetstreamManager(nc) };
  await ensureStreams(bus.jsm);
  // As a coordinator would.
  const intake = new ArtifactIntake(bus, () => undefined);
  return {
    broker,
    bus,
    reports,
    reported: (event) => new Promise((resolve) => waiting.push({ event, resolve })),
    enroll: async (agentId, pools = [POOL]) => {
      const key = createUser();
      if (!(await broker.enroll({ agentId, publicKey: key.getPublicKey(), pools }))) throw new Error(`agent ${agentId} refused`);
      return new TextDecoder().decode(key.getSeed());
    },
    connectAgent: (agentId, seed) => dial(agentId, seed),
    connectClient: () => dial("client", broker.seeds.client),
    connectJoiner: () => dial("joiner", broker.seeds.joiner),
    [Symbol.asyncDispose]: async () => {
      await intake[Symbol.asyncDispose]();
      await Promise.all(open.map((c) => c.close()));
      await broker.close();
    },
  };
}

/** What a damaged disk, or an agent of a release that let agents write names, may have left: bytes under the name of others. Its nuid. */
export async function forge({ js }: Bus, digest: string, bytes: Buffer): Promise<string> {
  const nuid = `forged${digest.slice(0, 16)}`;
  await js.publish(chunkSubject(nuid), bytes);
  await js.publish(nameSubject(digest), objectName({ digest, bytes: bytes.length }, nuid, 1, new Date()));
  return nuid;
}
