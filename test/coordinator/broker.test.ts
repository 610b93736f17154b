import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { NatsConnection } from "@nats-io/transport-node";
import { expect, test } from "vitest";
import { Broker } from "../../coordinator/src/broker/broker.ts";
import { requireDurable } from "../../coordinator/src/broker/settings.ts";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";

async function reconnected(nc: NatsConnection): Promise<void> {
  for await (const status of nc.status()) if (status.type === "reconnect") return;
}

test("the running broker syncs before it acknowledges, on disk, and its keys are readable by their owner only", async () => {
  using dir = tempDir("broker");
  await using real = await startBroker(dir.path);
  expect(real.broker.settings).toMatchObject({ syncAlways: true, version: "2.15.1" });
  expect(real.broker.settings.storeDir.startsWith(dir.path)).toBe(true);
  for (const role of ["system", "coordinator", "client"])
    expect(statSync(join(dir.path, "nats/keys", `${role}.nk`)).mode & 0o777).toBe(0o600);
  expect(statSync(join(dir.path, "nats/keys")).mode & 0o777).toBe(0o700);
});

test("a broker that acknowledges before it syncs is refused", () => {
  expect(() => requireDurable({ version: "2.15.1", syncAlways: false, storeDir: "/x" })).toThrow(/sync_interval: always/);
});

test("a killed broker comes back on the same port with what it had acknowledged, and clients reach it again", async () => {
  using dir = tempDir("broker");
  await using real = await startBroker(dir.path);
  const { url, pid } = real.broker;
  await real.bus.js.publish("vs.event.c1", "kept");
  const back = Promise.all([real.reported("broker.started"), reconnected(real.bus.nc)]);
  process.kill(pid ?? 0, "SIGKILL");
  await back;
  expect(real.broker.url).toBe(url);
  expect(real.broker.pid).not.toBe(pid);
  const stored = await real.bus.jsm.direct.getMessage("VS_EVENTS", { last_by_subj: "vs.event.c1" });
  expect(stored?.string()).toBe("kept");
  expect(real.reports.map((r) => r.event)).toEqual(["broker.started", "broker.died", "broker.started"]);
});

test("keys and agents outlive the broker: a second start in the folder knows them", async () => {
  using dir = tempDir("broker");
  let seed = "";
  {
    await using real = await startBroker(dir.path);
    seed = await real.enroll("a1");
  }
  await using again = await startBroker(dir.path);
  const agent = await again.connectAgent("a1", seed);
  expect(agent.isClosed()).toBe(false);
});

test("an agent's id can't be taken over with another key, nor a role's key be enrolled as an agent", async () => {
  using dir = tempDir("broker");
  await using real = await startBroker(dir.path);
  await real.enroll("a1");
  await expect(real.enroll("a1")).rejects.toThrow(/refused/);
});

test("adding an agent does not disturb those that are connected", async () => {
  using dir = tempDir("broker");
  await using real = await startBroker(dir.path);
  const first = await real.connectAgent("a1", await real.enroll("a1"));
  let disconnects = 0;
  void (async () => {
    for await (const status of first.status()) if (status.type === "disconnect") disconnects++;
  })();
  await real.enroll("a2");
  await first.flush();
  await real.bus.nc.flush();
  expect(disconnects).toBe(0);
});

test("a broker left over by a killed supervisor is adopted with its port, and watched like an own one", async () => {
  using dir = tempDir("broker");
  const first = spawn(process.execPath, [join(import.meta.dirname, "../kit/broker-process.ts"), dir.path], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(first.stdout, "data");
  first.kill("SIGKILL");
  await once(first, "exit");
  await using second = await startBroker(dir.path);
  expect(second.reports.map((r) => r.event)).toEqual(["broker.adopted"]);
  const { url, pid } = second.broker;
  const back = second.reported("broker.started");
  process.kill(pid ?? 0, "SIGKILL");
  await back;
  expect(second.broker.url).toBe(url);
});

test("a pid file whose pid now belongs to a foreign process is not trusted, and that process is left alone", async () => {
  using dir = tempDir("broker");
  mkdirSync(join(dir.path, "nats"), { recursive: true });
  writeFileSync(join(dir.path, "nats/broker.json"), JSON.stringify({ pid: process.pid, start: "another time", port: 4222 }));
  await using real = await startBroker(dir.path);
  expect(real.broker.pid).not.toBe(process.pid);
  expect(real.reports.map((r) => r.event)).toEqual(["broker.started"]);
});

test("a missing server binary is named with the way to get it", async () => {
  using dir = tempDir("broker");
  const options = {
    binary: join(dir.path, "none"),
    dir: dir.path,
    logFile: join(dir.path, "l"),
    host: "127.0.0.1",
    port: -1,
    log: () => undefined,
  };
  await expect(Broker.start(options)).rejects.toThrow(/nats-server is not at .*none; run npm start/);
});
