import { jetstream, jetstreamManager, type JetStreamClient, type JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { join } from "node:path";
import { credentialOf } from "../broker/access.ts";
import { Broker } from "../broker/broker.ts";
import { connectBus } from "../bus/connect.ts";
import { ensureStreams } from "../bus/streams.ts";
import type { Settings } from "../config.ts";
import { eventLogger, openLog, type EventLogger } from "../process/log-file.ts";
import { inTime, unlessAborted } from "../process/within.ts";

/** Sends one message its way and waits until everybody is idle again. Returns how long it took, in ms by this process's monotonic clock. */
export type Lane = () => Promise<number>;

/** What both lanes are laid on. */
export interface LaneSite {
  broker: Broker;
  /** The coordinator's connection. */
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
  settings: Settings;
  log: EventLogger;
  signal: AbortSignal;
  /** Ends, in reverse order, what a lane starts. */
  own: AsyncDisposableStack;
}

/** A broker of its own under settings.data, on settings.port, with this process as its coordinator. It goes with `own`. */
export async function openSite(settings: Settings, signal: AbortSignal, own: AsyncDisposableStack): Promise<LaneSite> {
  const log = eventLogger(openLog(settings.data, "bench", settings.logLevel));
  const [dir, logFile] = [join(settings.data, "nats"), join(settings.data, "logs", "nats.log")];
  const broker = await Broker.start({ binary: settings.natsServer, dir, logFile, host: "127.0.0.1", port: settings.port, log });
  own.defer(() => broker.close());
  const nc = await connectBus(credentialOf(broker, "coordinator"));
  own.defer(() => nc.close());
  const [js, jsm] = [jetstream(nc), await jetstreamManager(nc)];
  await ensureStreams(jsm);
  return { broker, nc, js, jsm, settings, log, signal, own };
}

/** A first start of an agent, which probes compilers, on a busy machine. A message takes milliseconds. */
const LIMIT_MS = 60_000;

/** Settles with `work`; rejects when that takes too long, and when the bench is stopped. */
export async function within<T>(work: Promise<T>, what: string, signal: AbortSignal, limitMs = LIMIT_MS): Promise<T> {
  return inTime(unlessAborted(work, signal), limitMs, () => new Error(`not within ${limitMs / 1000} s: ${what}`));
}
