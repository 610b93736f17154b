import { AuthorizationError, connect, type ConnectionOptions, type NatsConnection } from "@nats-io/transport-node";
import { dialOptions, inbox, nkeyOf } from "@vibeserve/shared";
import { setTimeout as sleep } from "node:timers/promises";

/** One try; then it tries again for ever, since a coordinator may come up, or back, much later. */
const DIAL_MS = 5_000;
const REDIAL_MS = 200;
/** A key that the broker does not know may be enrolled again, by a person: seconds do not matter, and a thousand such agents must not wear it out. */
const REFUSED_REDIAL_MS = 30_000;

export interface Way {
  servers: readonly string[];
  /** PEM of the authority that TLS is verified against; null: no TLS. */
  ca: string | null;
  /** NKey seed. */
  seed: string;
  /** Whose user it is, on a cluster; absent: the broker knows the key itself. */
  claim?: string | undefined;
  /** Agent id, or role: names the connection and its private inbox, which the broker allows to this key alone. */
  principal: string;
}

export interface Dialling {
  /** Can't be reached, and why: told once for each reason. */
  unreachable: (why: string) => void;
  /** The broker does not know this key; told once until it does again. */
  refused: () => void;
}

/**
 * Dials out to the broker. Waits for the first connection without end, and redials whenever it is lost, authorization errors included, those slowly: the broker's list
 * of agents may be reloaded at any time. Throws PlaintextError.
 */
export async function connectBus(
  { servers, ca, seed, claim, principal }: Way,
  { unreachable, refused }: Dialling,
): Promise<NatsConnection> {
  let [isRefused, lastWhy] = [false, ""];
  const turnedAway = () => {
    if (!isRefused) refused();
    isRefused = true;
  };
  const delayMs = () => (isRefused ? REFUSED_REDIAL_MS : REDIAL_MS) * (1 + Math.random());
  const way = dialOptions(servers, ca);
  const key = nkeyOf(seed);
  const options: ConnectionOptions = {
    ...way,
    name: principal,
    authenticator: (nonce) => ({
      ...{ nkey: key.publicKey, sig: key.sign(new TextEncoder().encode(nonce)) },
      ...(claim === undefined ? {} : { jwt: claim }),
    }),
    inboxPrefix: inbox(principal),
    timeout: DIAL_MS,
    maxReconnectAttempts: -1,
    reconnectDelayHandler: delayMs,
    ignoreAuthErrorAbort: true,
    // A cluster's servers name each other by addresses that may lead nowhere from here.
    ignoreClusterUpdates: true,
    pingInterval: 30_000,
  };
  for (;;) {
    try {
      const nc = await connect(options);
      isRefused = false;
      void (async () => {
        for await (const status of nc.status()) {
          if (status.type === "error" && status.error instanceof AuthorizationError) turnedAway();
          if (status.type === "reconnect") isRefused = false;
        }
      })();
      return nc;
    } catch (error) {
      if (error instanceof AuthorizationError) turnedAway();
      else {
        const why = error instanceof Error ? error.message : String(error);
        if (why !== lastWhy) unreachable(why);
        lastWhy = why;
      }
      await sleep(delayMs());
    }
  }
}
