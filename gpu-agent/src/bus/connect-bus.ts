import { connect, nkeyAuthenticator, type NatsConnection } from "@nats-io/transport-node";
import { inbox } from "@vibeserve/shared";
import type { Identity } from "./identity.ts";

/** One try; the client then tries again for ever, since a coordinator may come up, or back, much later. */
const DIAL_MS = 5_000;
const REDIAL_MS = 200;

/**
 * Dials out to the broker. Waits for the first connection without end (until the signal aborts), and redials whenever it is lost, authorization errors
 * included: the broker's list of agents may be reloaded at any time.
 */
export async function connectBus(servers: readonly string[], agentId: string, identity: Identity): Promise<NatsConnection> {
  return connect({
    servers: [...servers],
    name: agentId,
    authenticator: nkeyAuthenticator(new TextEncoder().encode(identity.seed)),
    // No one else may read this agent's replies: the broker allows this prefix to this key alone.
    inboxPrefix: inbox(agentId),
    timeout: DIAL_MS,
    waitOnFirstConnect: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: REDIAL_MS,
    reconnectJitter: REDIAL_MS,
    ignoreAuthErrorAbort: true,
    pingInterval: 30_000,
  });
}
