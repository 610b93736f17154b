import { join } from "node:path";
import { jetstream, jetstreamManager, type JetStreamClient, type JetStreamManager } from "@nats-io/jetstream";
import { createUser } from "@nats-io/nkeys";
import type { NatsConnection } from "@nats-io/transport-node";
import { chunkSubject, nameSubject, objectName } from "@vibeserve/shared";
import { ArtifactIntake } from "../../coordinator/src/artifact/artifact-intake.ts";
import { credentialOf, type BrokerAccess } from "../../coordinator/src/broker/access.ts";
import { Broker } from "../../coordinator/src/broker/broker.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { connectBus, type Credential } from "../../coordinator/src/bus/connect.ts";
import { ensureStreams } from "../../coordinator/src/bus/streams.ts";

/** The server that the product's set-up puts into its cache; tests use the same one. */
export const { natsServer } = loadSettings({});

export const POOL = "test";

export interface Bus {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
}

/** What a test needs of any broker. */
export interface BrokerInUse extends AsyncDisposable {
  broker: BrokerAccess;
  /** The coordinator's connection, streams made. */
  bus: Bus;
  enroll(agentId: string, pools?: string[]): Promise<string>;
  connectAgent(agentId: string, seed: string): Promise<NatsConnection>;
  connectClient(): Promise<NatsConnection>;
  connectJoiner(): Promise<NatsConnection>;
}

export interface RealBroker extends BrokerInUse {
  broker: Broker;
  /** What the supervisor reported, in order. */
  reports: { event: string; facts: Record<string, unknown> }[];
  /** Resolves when the supervisor reports this event (again). */
  reported(event: string): Promise<void>;
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
  const inUse = await use(broker);
  return { ...inUse, broker, reports, reported: (event) => new Promise((resolve) => waiting.push({ event, resolve })) };
}

/** Streams are made; disposing it closes the broker too. */
export async function use(broker: BrokerAccess): Promise<BrokerInUse> {
  const open: NatsConnection[] = [];
  const dial = async (credential: Credential) => {
    const nc = await connectBus(credential);
    open.push(nc);
    return nc;
  };
  const nc = await dial(credentialOf(broker, "coordinator"));
  const bus = { nc, js: jetstream(nc), jsm: await jetstreamManager(nc, { checkAPI: false }) };
  await ensureStreams(bus.jsm, broker.replicas);
  // As a coordinator would.
  const intake = new ArtifactIntake(bus, () => undefined);
  return {
    broker,
    bus,
    enroll: async (agentId, pools = [POOL]) => {
      const key = createUser();
      if (!(await broker.enroll({ agentId, publicKey: key.getPublicKey(), pools }))) throw new Error(`agent ${agentId} refused`);
      return new TextDecoder().decode(key.getSeed());
    },
    connectAgent: async (agentId, seed) =>
      dial({ ...credentialOf(broker, "client"), seed, claim: await broker.claimOf(agentId), principal: agentId }),
    connectClient: () => dial(credentialOf(broker, "client")),
    connectJoiner: () => dial(credentialOf(broker, "joiner")),
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
