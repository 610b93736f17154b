import { X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { connect } from "node:tls";
import { certificateIn, fingerprintOf } from "../../broker/tls.ts";
import { commandLine } from "../../command-line.ts";
import { check, fail, ok, skipped, warn, type Check, type Finding, type Patient } from "./check.ts";

const DIAL_MS = 5_000;
const SOON_DAYS = 30;

interface Shown {
  leaf: X509Certificate;
  /** What this side believes: the pinned authority. */
  ca: string | null;
  /** By which it is dialled. */
  host: string;
  from: string;
}

/** What the broker shows to whoever dials it, else the file that it would show. */
async function shown(at: Patient): Promise<Shown | string> {
  const dialled = await at.dial();
  const server = dialled.kind === "none" ? undefined : dialled.servers.find((s) => s.startsWith("tls://"));
  if (server === undefined) {
    const file = join(at.data, "nats/tls/server.pem");
    if (!existsSync(file)) return "the broker speaks no TLS: it listens on this machine alone, or nobody has joined yet";
    const pem = readFileSync(file, "utf8");
    const authority = join(at.data, "nats/tls/authority.pem");
    const host = at.settings.advertise?.replace(/:\d+$/, "") ?? "localhost";
    return {
      leaf: new X509Certificate(certificateIn(pem)),
      ca: existsSync(authority) ? certificateIn(readFileSync(authority, "utf8")) : null,
      host,
      from: file,
    };
  }
  const { hostname, port } = new URL(server.replace(/^tls:/, "https:"));
  const host = hostname.replace(/^\[|\]$/g, "");
  const leaf = await leafAt(host, Number(port || 443));
  const ca = dialled.kind === "none" ? undefined : dialled.ca;
  return typeof leaf === "string" ? `${server}: ${leaf}` : { leaf, ca: ca ?? null, host, from: server };
}

/** Looked at, not believed: what is wrong with it is what is asked. */
async function leafAt(host: string, port: number): Promise<X509Certificate | string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, rejectUnauthorized: false, timeout: DIAL_MS, ...(isIP(host) === 0 ? { servername: host } : {}) });
    const end = (result: X509Certificate | string) => {
      socket.destroy();
      resolve(result);
    };
    socket.once("secureConnect", () => end(socket.getPeerX509Certificate() ?? "it shows no certificate"));
    socket.once("timeout", () => end(`no answer in ${DIAL_MS / 1000} s`));
    socket.once("error", (error: Error) => end(error.message));
  });
}

const renew = ({ node, data }: Patient): string =>
  node
    ? "on the coordinator: rm <data>/nats/tls/server.pem and restart it"
    : `rm ${join(data, "nats/tls/server.pem")} and restart the coordinator (or renew VIBESERVE_TLS_CERT)`;

const certificate = (name: string, look: (shown: Shown, at: Patient) => Finding): Check =>
  check(name, "both", async (at) => {
    const found = await shown(at);
    return typeof found === "string" ? skipped(found) : look(found, at);
  });

export const TLS: readonly Check[] = [
  certificate("tls-expiry", ({ leaf, from }, at) => {
    const days = Math.floor((leaf.validToDate.getTime() - at.now()) / 86_400_000);
    if (leaf.validFromDate.getTime() > at.now())
      return fail(`${from}: valid only from ${leaf.validFrom}: is this machine's clock right?`, "timedatectl set-ntp true");
    if (days < 0) return fail(`${from}: expired at ${leaf.validTo}`, renew(at));
    return days < SOON_DAYS ? warn(`${from}: expires in ${days} days`, renew(at)) : ok(`${from}: ${days} days left`);
  }),
  certificate("tls-names", ({ leaf, host, from }, at) => {
    const covers = isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host);
    if (covers !== undefined) return ok(`${from}: its certificate names ${host}`);
    return fail(
      `${from}: its certificate names ${leaf.subjectAltName ?? "nothing"}, not ${host}`,
      at.node ? "on the coordinator: VIBESERVE_ADVERTISE=NAME and restart it" : `VIBESERVE_ADVERTISE=${host} ${commandLine("up")}`,
    );
  }),
  certificate("tls-authority", ({ leaf, ca, from }, { node, data }) => {
    if (ca === null) return skipped(`${from}: no authority is pinned here to hold it against`);
    const authority = new X509Certificate(ca);
    const print = fingerprintOf(ca);
    if (leaf.verify(authority.publicKey)) return ok(`${from}: signed by the pinned authority ${print}`);
    const fix = node
      ? `${commandLine("agents", ["token"])} on the coordinator, then here: ${commandLine("agent", ["--data", data, "--join", "LINE"])}`
      : "copy the coordinator's client.json anew";
    return fail(
      `${from}: not signed by the authority that was pinned, ${print}, but by ${leaf.issuer}: another coordinator, its keys made anew, or someone between`,
      fix,
    );
  }),
];
