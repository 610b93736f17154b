import { createHash, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { connect, type DetailedPeerCertificate } from "node:tls";
import { ConfigError } from "../config.ts";

const DIAL_MS = 5_000;

/**
 * The authority that a join line pins, as PEM, read from the broker itself. Nothing is sent to that broker and nothing else it says is believed: the connection that
 * follows is verified against this certificate in full. fingerprint: base64url of the sha256 of its DER. Rejects with ConfigError where the broker shows another, with
 * any other Error where it can't be reached.
 */
export async function fetchPinnedCa(server: string, fingerprint: string): Promise<string> {
  const { hostname, port } = new URL(server.replace(/^tls:/, "http:"));
  const host = hostname.replace(/^\[|\]$/g, "");
  const socket = connect({ host, port: Number(port), rejectUnauthorized: false, ...(isIP(host) === 0 ? { servername: host } : {}) });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.setTimeout(DIAL_MS, () => reject(new Error(`no answer from ${server} in ${DIAL_MS} ms`)));
      socket.once("secureConnect", resolve);
      socket.once("error", reject);
      socket.once("close", () => reject(new Error(`${server} closed the connection`)));
    });
    for (let shown: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true); shown?.raw;) {
      if (createHash("sha256").update(shown.raw).digest("base64url") === fingerprint) return new X509Certificate(shown.raw).toString();
      shown = shown.issuerCertificate === shown ? undefined : shown.issuerCertificate;
    }
  } finally {
    socket.destroy();
  }
  throw new ConfigError(
    `gpu-agent: ${server} shows another authority than the join line pins: the line is of another coordinator, or someone is in between`,
  );
}
