import { AuthorizationError, connect, type NatsConnection, type NodeConnectionOptions } from "@nats-io/transport-node";
import { dialOptions, inbox, nkeyOf } from "@vibeserve/shared";
import { patiently } from "../process/backoff.ts";

export interface Credential {
  servers: string[];
  /** PEM of the authority that TLS is verified against. */
  ca?: string | undefined;
  seed: string;
  /** Whose user it is, on a cluster; absent: the broker knows the key itself. */
  claim?: string | undefined;
  /** Role or agent id: names the connection and its private inbox. */
  principal: string;
}

/** First dial, in ms: the broker is on loopback or in the same cluster, and a person may be waiting. */
const DIAL_LIMIT_MS = 5_000;

/**
 * Dials once, or again and again for patienceMs (rejects if nobody answers, and at once where the key is not known), and from then on redials for ever: the
 * supervisor restarts the broker on the same port. An authorization error while it is being restarted or reloaded must not end a daemon, so it is retried like any
 * other. Throws PlaintextError.
 */
export async function connectBus(credential: Credential, patienceMs = 0): Promise<NatsConnection> {
  const way = dialOptions(credential.servers, credential.ca);
  const key = nkeyOf(credential.seed);
  const options: NodeConnectionOptions = {
    ...way,
    name: credential.principal,
    authenticator: (nonce) => ({
      ...{ nkey: key.publicKey, sig: key.sign(new TextEncoder().encode(nonce)) },
      ...(credential.claim === undefined ? {} : { jwt: credential.claim }),
    }),
    inboxPrefix: inbox(credential.principal),
    timeout: DIAL_LIMIT_MS,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 100,
    reconnectJitter: 100,
    ignoreAuthErrorAbort: true,
    // A cluster's servers name each other by addresses that may lead nowhere from here.
    ignoreClusterUpdates: true,
    pingInterval: 30_000,
    // Else the client makes two errors for each publish in case it fails: an eighth of the coordinator's time at 1,400 jobs a second.
    noAsyncTraces: true,
  };
  return patiently(
    patienceMs,
    () => connect(options),
    (error) => error instanceof AuthorizationError,
  );
}
