import { request } from "node:http";

/** One look may take this long: a server that is loading on busy cores answers late, one that hangs never does. */
const LOOK_MS = 2_000;

/** GET /health on the socket: the status code, or null where nobody answered (yet). Never rejects. */
export function askHealth(socketPath: string, timeoutMs = LOOK_MS): Promise<number | null> {
  return new Promise((resolve) => {
    const req = request(
      { socketPath, path: "/health", method: "GET", agent: false, headers: { host: "stack", connection: "close" } },
      (res) => {
        // An untrusted body: read a little, so that a server that streams for ever is not waited for.
        let bytes = 0;
        res.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > 65_536) res.destroy();
        });
        res.on("error", () => undefined);
        resolve(res.statusCode ?? null);
      },
    );
    req.setTimeout(timeoutMs, () => req.destroy(new Error("no answer")));
    req.on("error", () => resolve(null));
    req.end();
  });
}
