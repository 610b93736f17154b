import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { RetentionPolicy, StorageType } from "@nats-io/jetstream";
import { createUser } from "@nats-io/nkeys";
import { BUCKETS, STREAMS, subjects } from "@vibeserve/shared";
import { Packr } from "msgpackr";
import { expect, test, vi } from "vitest";
import { launch } from "../../coordinator/src/broker/launch.ts";
import type { Finding, Patient } from "../../coordinator/src/operate/doctor/check.ts";
import { dialAgent, dialCoordinator } from "../../coordinator/src/operate/doctor/dialled.ts";
import { natsServer } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { healthyMachine, look, openWard, put, type Ward } from "./doctor-kit.ts";

vi.setConfig({ testTimeout: 60_000 });

const packr = new Packr({ useRecords: false });

/** An agent's entry, as a release of any kind might have written it. */
async function entry({ real }: Ward, agentId: string, more: object = {}): Promise<void> {
  const said = {
    v: 1,
    kind: "agent",
    agentId,
    version: "0.1.0",
    startedAt: Date.now() - 1_000,
    host: agentId,
    devices: [{ simulated: false }],
    ...more,
  };
  await real.bus.js.publish(`$KV.${BUCKETS.agents}.${agentId}.info`, packr.pack(said));
}

/** A wire on which nothing larger than this goes through: what follows is gone, and so is the rest. */
async function narrowWire(to: string, bytes: number): Promise<AsyncDisposable & { url: string }> {
  const far = new URL(to);
  const server = createServer((near) => {
    const other = connect(Number(far.port), far.hostname);
    let sent = 0;
    near.on("data", (data) => {
      sent += data.length;
      if (sent < bytes) other.write(data);
    });
    other.on("data", (data) => near.write(data));
    for (const [a, b] of [
      [near, other],
      [other, near],
    ] as const) {
      a.on("error", () => b.destroy());
      a.on("close", () => b.destroy());
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `nats://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      await Promise.resolve();
    },
  };
}

/** An agent's folder, as joining leaves it. */
function member(data: string, seed: string, url: string): void {
  put(data, "agent.nk", seed, 0o600);
  put(data, "membership.json", JSON.stringify({ v: 1, kind: "membership", servers: [url], ca: null, joiner: null, pools: null }), 0o600);
}

type Change = (ward: Ward) => Promise<unknown>;
type Case = [check: string, what: string, change: Change, status: Finding["status"], saw: RegExp, fix: RegExp];
const CASES: Case[] = [
  ["broker-reachable", "a broker that is gone", brokerGone, "fail", /127\.0\.0\.1:\d+: /, /^npx vibeserve up --data /],
  ["broker-reachable", "an agent that the broker does not know", strangerAgent, "fail", /does not know this key/, /agents token/],
  ["broker-store", "a store in memory", ({ dir }) => Promise.resolve(mounts(dir, "tmpfs")), "fail", /in memory \(tmpfs\)/, /on a disk/],
  ["broker-store", "a store on a network", ({ dir }) => Promise.resolve(mounts(dir, "nfs4")), "warn", /on nfs4/, /block volume/],
  [
    "clock-skew",
    "a clock that is ahead",
    () => Promise.resolve({ now: () => Date.now() + 600_000 }),
    "warn",
    /600\.\d s ahead/,
    /timedatectl/,
  ],
  ["large-messages", "a way that takes no large packets", smallWay, "fail", /small messages go through and large ones do not/, /mtu 1400/],
  [
    "broker-writes",
    "a stream that takes no more",
    async ({ real: { bus } }) => await bus.jsm.streams.update(`KV_${BUCKETS.agents}`, { max_bytes: 1 }),
    "fail",
    /does not store: .*maximum bytes/,
    /disk-full/,
  ],
  [
    "streams",
    "one that is missing",
    async ({ real: { bus } }) => await bus.jsm.streams.delete(STREAMS.results),
    "fail",
    /VS_RESULTS: stream not found/,
    /backup/,
  ],
  ["streams", "one in memory", resultsInMemory, "fail", /VS_RESULTS is kept in memory/, /restore a backup/],
  [
    "streams",
    "fewer copies than were asked for",
    ({ patient }) => Promise.resolve({ settings: { ...patient.settings, nats: { servers: [], keysDir: "", replicas: 3 } } }),
    "fail",
    /VS_EVENTS has 1 replicas of 3/,
    /--replicas=3/,
  ],
  ["results-backlog", "nobody who takes results in", manyResults, "warn", /1001 results wait/, /results-wait/],
  [
    "event-logs",
    "a log with a stranger's event",
    async ({ real: { bus } }) => await bus.js.publish(subjects.event("c1"), packr.pack({ v: 1, kind: "event" })),
    "fail",
    /campaign c1/,
    /campaign-unreadable/,
  ],
  [
    "agents-release",
    "an agent of the next protocol",
    (w) => entry(w, "a1", { protocol: 2 }),
    "fail",
    /a1 \(0\.1\.0, protocol 2\)/,
    /agents-incompatible/,
  ],
  [
    "agents-release",
    "an agent that was forgotten",
    (w) => entry(w, "a1", { version: "0.0.1" }),
    "warn",
    /older than this release .*: a1 \(0\.0\.1/,
    /update them/,
  ],
  [
    "agents-clock",
    "an agent whose clock is ahead",
    (w) => entry(w, "a1", { startedAt: Date.now() + 3_600_000 }),
    "warn",
    /a1's clock is at least (3599|3600) s ahead/,
    /timedatectl/,
  ],
  ["cloned-machines", "two machines with one id", twins, "warn", /a1 on a1, a2 on a2/, /rm \/etc\/machine-id/],
];

async function brokerGone(ward: Ward): Promise<void> {
  await ward.real.broker.close();
  ward.redial(() => dialCoordinator(ward.patient.settings));
}
async function twins(ward: Ward): Promise<void> {
  for (const id of ["a1", "a2"]) await entry(ward, id, { machine: "m" });
}
async function strangerAgent({ dir, real, redial }: Ward): Promise<Partial<Patient>> {
  const data = join(dir, "node");
  mkdirSync(data);
  member(data, new TextDecoder().decode(createUser().getSeed()), real.broker.url);
  await Promise.resolve();
  redial(() => dialAgent(data, "a1"));
  return { data, node: true };
}
function mounts(dir: string, type: string): Partial<Patient> {
  const root = join(dir, "other");
  healthyMachine(root);
  put(root, "/proc/mounts", `/dev/sda1 / ext4 rw 0 0\nx ${dir} ${type} rw 0 0\n`);
  return { root };
}
async function smallWay({ real, patient, redial, dir }: Ward): Promise<Partial<Patient>> {
  const wire = await narrowWire(real.broker.url, 64 * 1024);
  const data = join(dir, "narrow");
  put(data, "nats/keys/coordinator.nk", real.broker.seeds.coordinator, 0o600);
  put(
    data,
    "client.json",
    JSON.stringify({ v: 1, kind: "client", servers: [wire.url], seed: real.broker.seeds.client, pid: 1, startedAt: 1 }),
  );
  redial(() => dialCoordinator({ ...patient.settings, data }));
  return {};
}
async function resultsInMemory({ real: { bus } }: Ward): Promise<void> {
  await bus.jsm.streams.delete(STREAMS.results);
  await bus.jsm.streams.add({
    name: STREAMS.results,
    subjects: [subjects.result("*", "*")],
    retention: RetentionPolicy.Workqueue,
    storage: StorageType.Memory,
  });
}
async function manyResults({ real: { bus } }: Ward): Promise<void> {
  await Promise.all(
    Array.from({ length: 1_001 }, () => bus.js.publish(subjects.result("a1", "c1"), new Uint8Array(1), { timeout: 30_000 })),
  );
}

test.each(CASES)("%s: %s", async (name, _what, change, status, saw, fix) => {
  using dir = tempDir("doctor-broker");
  await using ward = await openWard(dir.path);
  expect(await look(name, ward.patient)).toMatchObject({ status: "ok" });
  const found = await look(name, { ...ward.patient, ...((await change(ward)) as Partial<Patient> | undefined) });
  expect(found).toMatchObject({ status, saw: expect.stringMatching(saw) as string, fix: expect.stringMatching(fix) as string });
});

test("broker-sync: a server that acknowledges before it syncs", async () => {
  using dir = tempDir("doctor-broker");
  await using ward = await openWard(dir.path);
  expect(await look("broker-sync", ward.patient)).toMatchObject({ status: "ok" });
  const config = JSON.parse(readFileSync(join(ward.patient.data, "nats/nats.conf"), "utf8")) as { jetstream: Record<string, unknown> };
  delete config.jetstream["sync_interval"];
  const [portsDir, configFile] = [join(dir.path, "ports"), join(dir.path, "lax.conf")];
  const own = { ports_file_dir: portsDir, port: -1, log_file: join(dir.path, "lax.log") };
  writeFileSync(configFile, JSON.stringify({ ...config, ...own, jetstream: { ...config.jetstream, store_dir: join(dir.path, "lax") } }));
  const server = await launch(
    { binary: natsServer, configFile, portsDir, errorFile: join(dir.path, "lax.err"), agents: 1 },
    () => undefined,
  );
  try {
    const client = JSON.parse(readFileSync(join(ward.patient.data, "client.json"), "utf8")) as { servers: string[] };
    writeFileSync(join(ward.patient.data, "client.json"), JSON.stringify({ ...client, servers: [`nats://127.0.0.1:${server.port}`] }));
    ward.redial(() => dialCoordinator(ward.patient.settings));
    expect(await look("broker-sync", ward.patient)).toMatchObject({
      status: "fail",
      saw: expect.stringMatching(/a power cut loses/) as string,
      fix: expect.stringMatching(/sync_interval: always/) as string,
    });
  } finally {
    server.child.kill("SIGKILL");
  }
});

test("on a node: its broker, its clock and large messages are seen with the agent's own key", async () => {
  using dir = tempDir("doctor-broker");
  await using ward = await openWard(dir.path);
  const seed = await ward.real.enroll("a1");
  const data = join(dir.path, "node");
  member(data, seed, ward.real.broker.url);
  ward.redial(() => dialAgent(data, "a1"));
  const at = { ...ward.patient, node: true, data };
  for (const name of ["broker-reachable", "clock-skew", "large-messages"])
    expect([name, await look(name, at)]).toEqual([name, expect.objectContaining({ status: "ok" })]);
});
