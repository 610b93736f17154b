import { X509Certificate } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";
import { brokerUrl, dialOptions } from "@vibeserve/shared";
import { describe, expect, test } from "vitest";
import { Broker } from "../../coordinator/src/broker/broker.ts";
import { makeAuthority, makeCertificate } from "../../coordinator/src/broker/own-authority.ts";
import { brokerTls } from "../../coordinator/src/broker/tls.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { fetchPinnedCa } from "../../gpu-agent/src/bus/pinned-ca.ts";
import { natsServer } from "../kit/real-broker.ts";
import { startCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";

const everywhere = { host: "0.0.0.0", advertised: "localhost", given: null };
const leafOf = (file: string) => new X509Certificate(readFileSync(file, "utf8").replace(/^[^]*?(?=-----BEGIN CERTIFICATE)/, ""));

test("a broker that other machines can reach speaks TLS to those who pin its authority, and nothing to the rest", async () => {
  using dir = tempDir("tls");
  await using real = await startCoordinator(dir.path, { settings: { host: "0.0.0.0", advertise: "localhost" } });
  const { broker } = real.coordinator;
  expect(broker.publicUrl).toMatch(/^tls:\/\/localhost:\d+$/);
  const credential = { servers: [broker.publicUrl], seed: broker.seeds.client, principal: "client" };
  await (await connectBus({ ...credential, ca: broker.ca })).close();
  const stranger = await makeAuthority();
  const strangersCa = stranger.slice(stranger.indexOf("-----BEGIN CERTIFICATE"));
  await expect(connectBus({ ...credential, ca: strangersCa })).rejects.toThrow(/certificate|self-signed|issuer/);
  // A name that leads here and is not in the certificate.
  const misnamed = { ...dialOptions([broker.publicUrl.replace("localhost", "127.0.0.2")], broker.ca), timeout: 3_000, reconnect: false };
  const authenticator = nkeyAuthenticator(new TextEncoder().encode(broker.seeds.client));
  await expect(connect({ ...misnamed, authenticator })).rejects.toThrow(/does not match certificate/);
  const plain = { servers: broker.url.replace("tls:", "nats:"), timeout: 1_000, reconnect: false };
  await expect(connect({ ...plain, authenticator })).rejects.toThrow();
  const pinned = await fetchPinnedCa(broker.publicUrl, broker.fingerprint ?? "");
  expect(pinned).toBe(broker.ca);
  await expect(fetchPinnedCa(broker.publicUrl, "A".repeat(43))).rejects.toThrow(/another authority than the join line pins/);
  const agent = await real.agent("a1");
  await agent[Symbol.asyncDispose]();
});

test("authority and certificate outlive a start, and only the certificate is made anew for another name; keys are the owner's alone", async () => {
  using dir = tempDir("tls");
  const first = await brokerTls(dir.path, everywhere);
  const file = first?.file ?? "";
  const serial = leafOf(file).serialNumber;
  expect(await brokerTls(dir.path, everywhere)).toEqual(first);
  expect(leafOf(file).serialNumber).toBe(serial);
  const renamed = await brokerTls(dir.path, { ...everywhere, advertised: "gpu.example" });
  expect(renamed?.ca).toBe(first?.ca);
  expect(leafOf(file).serialNumber).not.toBe(serial);
  expect(leafOf(file).checkHost("gpu.example")).toBe("gpu.example");
  for (const name of ["server.pem", "authority.pem"]) expect(statSync(join(dir.path, name)).mode & 0o777).toBe(0o600);
  // A certificate of another authority, as after a restored half of a backup.
  writeFileSync(file, await makeCertificate(await makeAuthority(), ["gpu.example", "localhost"]));
  await brokerTls(dir.path, everywhere);
  expect(leafOf(file).verify(new X509Certificate(first?.ca ?? "").publicKey)).toBe(true);
  expect(await brokerTls(dir.path, { host: "127.0.0.1", advertised: null, given: null })).toBeNull();
});

test("a person's own certificate is used; one that names no address of the broker is refused with the setting to change", async () => {
  using dir = tempDir("tls");
  const authority = await makeAuthority();
  const pem = await makeCertificate(authority, ["localhost"]);
  const certificates = (text: string) => text.slice(text.indexOf("-----BEGIN CERTIFICATE"));
  const given = { cert: join(dir.path, "cert"), key: join(dir.path, "key"), ca: join(dir.path, "ca") };
  writeFileSync(given.cert, certificates(pem));
  writeFileSync(given.key, pem.slice(0, pem.indexOf("-----BEGIN CERTIFICATE")));
  writeFileSync(given.ca, certificates(authority));
  const tls = await brokerTls(dir.path, { host: "0.0.0.0", advertised: null, given });
  expect(tls?.localHost).toBe("localhost");
  const options = { binary: natsServer, dir: join(dir.path, "nats"), logFile: join(dir.path, "log"), host: "0.0.0.0", port: -1, tls };
  const broker = await Broker.start({ ...options, log: () => undefined });
  const nc = await connectBus({ servers: [broker.url], ca: broker.ca, seed: broker.seeds.client, principal: "client" });
  await nc.close();
  await broker.close();
  writeFileSync(given.cert, certificates(await makeCertificate(authority, ["elsewhere.example"])));
  await expect(brokerTls(dir.path, { host: "0.0.0.0", advertised: "gpu.example", given })).rejects.toThrow(
    /names none of gpu\.example.*VIBESERVE_ADVERTISE/,
  );
  await expect(brokerTls(dir.path, { ...everywhere, given: { ...given, key: "/none" } })).rejects.toThrow(/TLS: ENOENT/);
});

test("a broker is not started in plaintext where other machines can reach it", async () => {
  using dir = tempDir("tls");
  const options = { binary: natsServer, dir: dir.path, logFile: join(dir.path, "log"), host: "0.0.0.0", port: -1, log: () => undefined };
  await expect(Broker.start(options)).rejects.toThrow(/listens on 0\.0\.0\.0 needs TLS/);
});

describe("an address", () => {
  test.each([
    "nats://10.0.0.1:4222",
    "10.0.0.1:4222",
    "nats://127.0.0.1.example:4222",
    "nats://localhost.example:4222",
    "nats://[fe80::1]:4222",
  ])("%s is not dialled in plaintext", (server) => {
    expect(() => dialOptions([server], undefined)).toThrow(/is not TLS and not this machine.*tls:\/\/HOST:PORT/);
  });
  test.each(["nats://127.0.0.1:4222", "localhost:4222", "nats://[::1]:4222", brokerUrl(false, "::1", 1)])("%s is", (server) => {
    expect(dialOptions([server], undefined)).toEqual({ servers: [server] });
  });
  test("of TLS needs an authority, and plaintext ones beside it are left out", () => {
    expect(() => dialOptions(["tls://10.0.0.1:4222"], undefined)).toThrow(/no authority/);
    expect(dialOptions(["nats://127.0.0.1:1", "tls://10.0.0.1:4222"], "pem").servers).toEqual(["tls://10.0.0.1:4222"]);
  });
});
