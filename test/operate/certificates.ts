import "reflect-metadata";
import { createPrivateKey, webcrypto } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:tls";
import * as x509 from "@peculiar/x509";
import { makeAuthority } from "../../coordinator/src/broker/own-authority.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 86_400_000;
export const certificateIn = (pem: string): string => pem.slice(pem.indexOf("-----BEGIN CERTIFICATE-----"));

/** A server that shows a certificate for `name`, valid from and for so many days from now. */
export async function tlsServer(name: string, { fromDays = -10, days = 365 } = {}): Promise<AsyncDisposable & { url: string; ca: string }> {
  const authority = await makeAuthority();
  const issuer = new x509.X509Certificate(certificateIn(authority));
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: "CN=a broker",
    issuer: issuer.subject,
    publicKey: keys.publicKey,
    signingKey: createPrivateKey(authority).toCryptoKey(ALGORITHM, false, ["sign"]),
    notBefore: new Date(Date.now() + fromDays * DAY_MS),
    notAfter: new Date(Date.now() + days * DAY_MS),
    signingAlgorithm: ALGORITHM,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: name === "127.0.0.1" ? "ip" : "dns", value: name }])],
  });
  const key = x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
  const server = createServer({ key, cert: certificate.toString("pem") }, (socket) => socket.on("error", () => undefined));
  server.on("tlsClientError", () => undefined);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `tls://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ca: certificateIn(authority),
    [Symbol.asyncDispose]: async () => {
      server.close();
      await Promise.resolve();
    },
  };
}
