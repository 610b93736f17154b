import { connect, jwtAuthenticator, nkeyAuthenticator, type NatsConnection } from "@nats-io/transport-node";
import { dialOptions } from "@vibeserve/shared";
import { z } from "zod";

/** What the running server says of itself, over its system account. */
export interface BrokerSettings {
  version: string;
  syncAlways: boolean;
  /** JetStream's folder. */
  storeDir: string;
}

export class BrokerSettingsError extends Error {
  readonly settings: BrokerSettings;
  constructor(settings: BrokerSettings, message: string) {
    super(message);
    this.name = "BrokerSettingsError";
    this.settings = settings;
  }
}

const REQUEST_TIMEOUT_MS = 5_000;
/** 10,000 agents take 3 s on a slow machine that is otherwise idle. */
const RELOAD_MS = 30_000;

const JszReply = z.object({
  server: z.object({ ver: z.string() }),
  data: z.object({ config: z.object({ sync_always: z.boolean().default(false), store_dir: z.string() }) }),
});
const ReloadReply = z.object({ error: z.object({ code: z.number(), description: z.string() }).optional() });

/** Connection of the system user: reads settings, changes who may connect, notices when the server is gone. claim: on a cluster. */
export async function connectSystem(
  servers: readonly string[],
  seed: string,
  ca: string | undefined,
  claim?: string,
): Promise<NatsConnection> {
  const key = new TextEncoder().encode(seed);
  return connect({
    ...dialOptions(servers, ca),
    name: "vibeserve-supervisor",
    authenticator: claim === undefined ? nkeyAuthenticator(key) : jwtAuthenticator(claim, key),
    timeout: 5_000,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 100,
    reconnectJitter: 100,
    ignoreAuthErrorAbort: true,
  });
}

export async function readSettings(system: NatsConnection): Promise<BrokerSettings> {
  const reply = await ask(system, "JSZ");
  const { server, data } = JszReply.parse(reply);
  return { version: server.ver, syncAlways: data.config.sync_always, storeDir: data.config.store_dir };
}

/**
 * Refuses a server that acknowledges what a power cut can still lose. That streams are on file is checked where they are created (bus/streams).
 * Throws BrokerSettingsError.
 */
export function requireDurable(settings: BrokerSettings): void {
  if (!settings.syncAlways)
    throw new BrokerSettingsError(
      settings,
      "the broker acknowledges before it syncs (sync_interval is not always); VibeServe needs sync_interval: always",
    );
}

const readings = new WeakMap<NatsConnection, { last: Promise<void>; begun: boolean }>();

/** Makes the server read its configuration as it is now; returns when it has. Those who ask while it is being read share the next reading. */
export async function reloadConfiguration(system: NatsConnection): Promise<void> {
  const before = readings.get(system);
  if (before && !before.begun) return before.last;
  const reading = { last: Promise.resolve(), begun: false };
  reading.last = Promise.allSettled([before?.last]).then(() => {
    reading.begun = true;
    return reload(system);
  });
  readings.set(system, reading);
  return reading.last;
}

/**
 * Twice: the imports of an account that is new in a reload are subscribed only by the reload after it (nats-server 2.15.1, configureAccounts), until then
 * its requests find no responders.
 */
async function reload(system: NatsConnection): Promise<void> {
  for (let round = 0; round < 2; round++) {
    const { error } = ReloadReply.parse(await ask(system, "RELOAD", RELOAD_MS));
    if (error) throw new Error(`the broker refused its new configuration: ${error.description}`);
  }
}

async function ask(system: NatsConnection, question: string, timeout = REQUEST_TIMEOUT_MS): Promise<unknown> {
  const id = system.info?.server_id;
  if (id === undefined) throw new Error("not connected to the broker");
  return (await system.request(`$SYS.REQ.SERVER.${id}.${question}`, "{}", { timeout })).json();
}
