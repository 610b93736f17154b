// Needed by @peculiar/x509; both are loaded only when a certificate is made.
import "reflect-metadata";
import { createPrivateKey, webcrypto } from "node:crypto";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";
import { certificateIn } from "./tls.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const TEN_YEARS_MS = 10 * 365.25 * 86_400_000;
/** A node whose clock is behind by less still believes it. */
const CLOCK_SKEW_MS = 86_400_000;

/** A new authority: PEM of its key, then its certificate. It may sign servers' certificates and no further authority. */
export async function makeAuthority(): Promise<string> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=VibeServe coordinator's authority",
    keys,
    ...validity(),
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return pem(keys.privateKey, certificate);
}

/**
 * A server's certificate for these names and addresses: PEM of its key, the certificate, its authority. peers: servers of one cluster also show it to each other as
 * clients.
 */
export async function makeCertificate(authority: string, names: readonly string[], { peers = false } = {}): Promise<string> {
  const issuer = new x509.X509Certificate(certificateIn(authority));
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.create({
    subject: "CN=VibeServe broker",
    issuer: issuer.subject,
    publicKey: keys.publicKey,
    signingKey: createPrivateKey(authority).toCryptoKey(ALGORITHM, false, ["sign"]),
    ...validity(),
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, ...(peers ? [x509.ExtendedKeyUsage.clientAuth] : [])]),
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value }))),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return pem(keys.privateKey, certificate, issuer);
}

const newKeys = (): Promise<webcrypto.CryptoKeyPair> => webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);

const validity = () => ({ notBefore: new Date(Date.now() - CLOCK_SKEW_MS), notAfter: new Date(Date.now() + TEN_YEARS_MS) });

async function pem(key: webcrypto.CryptoKey, ...certificates: readonly x509.X509Certificate[]): Promise<string> {
  const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", key);
  return [x509.PemConverter.encode(pkcs8, "PRIVATE KEY"), ...certificates.map((c) => c.toString("pem"))].join("\n") + "\n";
}
