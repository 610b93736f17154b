import type { JetStreamClient, JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import type { Broker } from "../broker/broker.ts";
import type { Settings } from "../config.ts";
import type { EventLogger } from "../process/log-file.ts";

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

/** A first start of an agent, which probes compilers, on a busy machine. A message takes milliseconds. */
const LIMIT_MS = 60_000;

/** Settles with `work`; rejects when that takes too long, and when the bench is stopped. */
export async function within<T>(work: Promise<T>, what: string, signal: AbortSignal, limitMs = LIMIT_MS): Promise<T> {
  const over = Promise.withResolvers<never>();
  const stop = () => over.reject(new Error("stopped"));
  const timer = setTimeout(() => over.reject(new Error(`not within ${limitMs / 1000} s: ${what}`)), limitMs);
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  try {
    return await Promise.race([work, over.promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}
