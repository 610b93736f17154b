/** A broker may not be reached that way: bad input, told to a person as it is. */
export class PlaintextError extends Error {
  override readonly name = "PlaintextError";
}

/** Does this host never leave the machine? Names other than "localhost" may be anything, so they do not count. */
export function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/.test(host);
}

/** "tls://host:port", or "nats://host:port" where nothing leaves the machine; IPv6 in brackets. */
export function brokerUrl(tls: boolean, host: string, port: number): string {
  return `${tls ? "tls" : "nats"}://${host.includes(":") && !host.startsWith("[") ? `[${host}]` : host}:${port}`;
}

export interface DialOptions {
  servers: string[];
  /** The server speaks TLS from the first byte, so nothing unverified is ever read. */
  tls?: { ca: string; handshakeFirst: true };
}

/**
 * How to dial brokers. TLS is verified against `ca` (PEM) and nothing else: neither the system's authorities nor an address that only looks right will do. Throws
 * PlaintextError where an address outside this machine is not TLS, or TLS has no authority to be verified against.
 */
export function dialOptions(servers: readonly string[], ca: string | null | undefined): DialOptions {
  const secure = servers.filter((server) => server.startsWith("tls://"));
  const open = servers.find((server) => !server.startsWith("tls://") && !isLoopback(hostOf(server)));
  if (open !== undefined)
    throw new PlaintextError(
      `${open} is not TLS and not this machine: keys and results would cross the network in the clear. Give tls://HOST:PORT with the coordinator's authority, as in a line of "vibeserve agents token"`,
    );
  if (secure.length === 0) return { servers: [...servers] };
  if (ca === null || ca === undefined)
    throw new PlaintextError(
      `${secure[0] ?? ""} can't be verified: no authority (CA) is pinned; join with a line of "vibeserve agents token", or name the CA's file`,
    );
  return { servers: secure, tls: { ca, handshakeFirst: true } };
}

function hostOf(server: string): string {
  return server.replace(/^\w+:\/\//, "").replace(/:\d+$/, "");
}
