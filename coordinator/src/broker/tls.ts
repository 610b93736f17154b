import { createHash, X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { join } from "node:path";
import { isLoopback } from "@vibeserve/shared";
import { BrokerStartError } from "./launch.ts";
import { writePrivate } from "./principals.ts";

/** What a broker needs to speak TLS, and its clients to know it by. */
export interface BrokerTls {
  /** Private key, certificate and authority in one file, mode 0600, so that they always belong together. */
  file: string;
  /** PEM of the authority. */
  ca: string;
  /** base64url of the sha256 of the authority's certificate. */
  fingerprint: string;
  /** A name in the certificate by which this machine reaches the broker. */
  localHost: string;
}

export interface TlsChoice {
  /** Where the broker listens. */
  host: string;
  /** The name or address that nodes dial, where it is another. */
  advertised: string | null;
  /** A person's own certificate; null: one of our own authority's, made when something other than this machine may dial. */
  given: { cert: string; key: string; ca: string } | null;
}

/** Listens on every address of the machine. */
export const isWildcard = (host: string): boolean => host === "0.0.0.0" || host === "::";

/**
 * The authority and certificate of a broker, kept in `dir`; null where all stays on this machine. A certificate lives as long as its authority, ten years: both keys
 * lie in one folder, so who takes one has the other. It is made anew when the machine's names change. Throws BrokerStartError where a given one does not fit.
 */
export async function brokerTls(dir: string, { host, advertised, given }: TlsChoice): Promise<BrokerTls | null> {
  if (given === null && isLoopback(host)) return null;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const file = join(dir, "server.pem");
  const names = namesOf(host, advertised);
  if (given !== null) {
    const [key, cert, ca] = [given.key, given.cert, given.ca].map((path) => readGiven(path));
    writePrivate(file, [key, cert, ca].join("\n"));
    const localHost = names.find((name) => covers(new X509Certificate(cert ?? ""), name));
    if (localHost === undefined)
      throw new BrokerStartError(
        `the certificate ${given.cert} names none of ${names.join(", ")}: set VIBESERVE_ADVERTISE to a name in it`,
      );
    return { file, ca: ca ?? "", fingerprint: fingerprintOf(ca ?? ""), localHost };
  }
  const authorityFile = join(dir, "authority.pem");
  if (!existsSync(authorityFile)) writePrivate(authorityFile, await (await import("./own-authority.ts")).makeAuthority());
  const authority = readFileSync(authorityFile, "utf8");
  const ca = new X509Certificate(certificateIn(authority)).toString();
  const known = existsSync(file) ? readFileSync(file, "utf8") : null;
  if (known === null || !isGood(known, ca, names))
    writePrivate(file, await (await import("./own-authority.ts")).makeCertificate(authority, names));
  return { file, ca, fingerprint: fingerprintOf(ca), localHost: isWildcard(host) ? "127.0.0.1" : host };
}

export const fingerprintOf = (pem: string): string => createHash("sha256").update(new X509Certificate(pem).raw).digest("base64url");

/** By which this machine may be dialled. */
function namesOf(host: string, advertised: string | null): string[] {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((i) => i.address));
  // Nobody dials a link-local address of a container host, which has hundreds.
  const own = addresses.filter((address) => !address.startsWith("fe80:"));
  const listens = isWildcard(host) ? [hostname(), ...own] : [host];
  return [...new Set([...(advertised === null ? [] : [advertised]), ...listens, "localhost", "127.0.0.1", "::1"])];
}

function isGood(pem: string, ca: string, names: readonly string[]): boolean {
  const leaf = new X509Certificate(certificateIn(pem));
  const left = leaf.validToDate.getTime() - Date.now();
  return leaf.verify(new X509Certificate(ca).publicKey) && left > 30 * 86_400_000 && names.every((name) => covers(leaf, name));
}

const covers = (leaf: X509Certificate, name: string): boolean =>
  (isIP(name) === 0 ? leaf.checkHost(name) : leaf.checkIP(name)) !== undefined;

/** The first certificate of a PEM file that begins with a key. */
export const certificateIn = (pem: string): string => pem.slice(pem.indexOf("-----BEGIN CERTIFICATE-----"));

function readGiven(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new BrokerStartError(`TLS: ${error instanceof Error ? error.message : String(error)}`);
  }
}
