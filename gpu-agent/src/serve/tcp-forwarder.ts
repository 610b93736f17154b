import { createConnection, createServer, type AddressInfo, type Socket } from "node:net";

export interface Forwarder {
  readonly port: number;
  /** Ends every connection and frees the port. */
  close(): Promise<void>;
}

/** A stack takes at least 64 connections at once (candidate contract); more than a few times that is an accident. */
const MAX_CONNECTIONS = 256;

/**
 * Carries bytes between a TCP port on loopback and a stack's unix socket, so that any HTTP client reaches it. Nothing is read or changed on the way. A side
 * that ends is ended on the other; a client that goes away is thereby seen by the stack. Rejects with the system's error where the port is taken.
 */
export async function forwardTcp(port: number, socketPath: string): Promise<Forwarder> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const stack = createConnection({ path: socketPath, allowHalfOpen: true });
    for (const [from, to] of [
      [client, stack],
      [stack, client],
    ] as const) {
      open.add(from);
      from.pipe(to);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        open.delete(from);
        // Half-open is for a side that has said all; a side that is gone takes the other along.
        if (!to.writableFinished) to.destroy();
      });
    }
  });
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      server.off("error", reject);
      resolve();
    });
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}
