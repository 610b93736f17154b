import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createAccount, createUser, type KeyPair } from "@nats-io/nkeys";
import { ClientContext } from "@vibeserve/shared";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { keySecrets } from "../../coordinator/src/broker/cluster/key-secrets.ts";
import { ClusterKeys } from "../../coordinator/src/broker/cluster/keys.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { openDataBus } from "../../coordinator/src/operate/data-bus.ts";
import { patiently } from "../../coordinator/src/process/backoff.ts";
import { TcpProxy } from "../faults/tcp-proxy.ts";
import { apiServer, refusal } from "../kit/api-server.ts";
import { startCluster, type NatsCluster } from "../kit/nats-cluster.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site, type Command } from "../kit/vibeserve-process.ts";
import { announce } from "./doctor-kit.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

/** A cluster and its coordinator behind a wire that refuses what a network plugin refuses of a pod that is seconds old. */
const dir = tempDir("young-pod");
let cluster: NatsCluster;
let wire: TcpProxy;
let site: Site;
const keysDir = (): string => join(cluster.keys, "coordinator");
const through = (): string => wire.url.replace("nats:", "tls:");
const env = (keys: string) => ({ VIBESERVE_NATS_URL: through(), VIBESERVE_NATS_KEYS: keys });
const seedOf = (key: KeyPair): string => new TextDecoder().decode(key.getSeed());

beforeAll(async () => {
  cluster = await startCluster(dir.path, 1);
  wire = await TcpProxy.open(cluster.url.replace("tls:", "http:"));
  site = new Site(dir.path, { ...env(keysDir()), XDG_CONFIG_HOME: join(dir.path, "config") });
  wire.refuse(2);
  await site.run("up").printed(/coordinator ready/);
  expect(readFileSync(join(site.data, "logs/coordinator.log"), "utf8")).toMatch(/"broker.waited-for".*the NATS servers are waited for: /);
});
afterAll(async () => {
  await site.stop();
  site.cleanUp();
  await wire[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

/** Its first connections are refused, and not one less than that. */
async function young(command: () => Command, refused: number): Promise<Command> {
  wire.refuse(refused);
  const running = command();
  expect(await running.ended, running.err()).toBe(0);
  expect(wire.refuses).toBe(0);
  return running;
}

test("upgrade --check is not told by a young pod's network that the coordinator is away: it asks it once the cluster answers", async () => {
  const folder = `${join(dir.path, "backups")}/`;
  const checked = await young(() => site.run("upgrade", "--check", "--backup-to", folder), 3);
  expect(readdirSync(folder)).toEqual([expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ\.tar$/)]);
  expect(checked.out() + checked.err()).not.toMatch(/does not answer/);
  expect(checked.out()).toMatch(/^ok$/m);
});

test("smoke by a named context does the same; a verb that a person waits for takes the first refusal for an answer", async () => {
  const contexts = join(dir.path, "config", "vibeserve", "contexts");
  mkdirSync(contexts, { recursive: true });
  const left = ClientContext.parse(JSON.parse(readFileSync(join(site.data, "client.json"), "utf8")));
  writeFileSync(join(contexts, "cluster.json"), JSON.stringify({ ...left, servers: [through()] }));
  await young(() => site.run("smoke", "--context", "cluster", "--seed", "stacks/tiny"), 2);
  wire.refuse(2);
  const status = site.run("status", "--context", "cluster");
  expect(await status.ended).toBe(3);
  expect(wire.refuses).toBe(1);
  wire.refuse(0);
});

test("a coordinator that waits for its servers ends when it is told to", async () => {
  const nowhere = { VIBESERVE_NATS_URL: "tls://127.0.0.1:9", VIBESERVE_NATS_KEYS: keysDir(), VIBESERVE_LOG_STDOUT: "1" };
  const other = new Site(join(dir.path, "waiting"), nowhere);
  const up = other.run("up");
  await up.printed(/the NATS servers are waited for/);
  up.child.kill("SIGTERM");
  expect(await up.ended).toBe(3);
  expect(up.err()).toMatch(/no NATS server of tls:\/\/127\.0\.0\.1:9 takes us in/);
});

test("a cluster that does not know the key says so at once, as a message and not as a stack", async () => {
  const keys = ClusterKeys.parse(JSON.parse(readFileSync(join(keysDir(), "keys.json"), "utf8")));
  const stranger = join(dir.path, "stranger");
  mkdirSync(stranger);
  writeFileSync(join(stranger, "keys.json"), JSON.stringify({ ...keys, signer: seedOf(createAccount()) }));
  const other = new Site(join(dir.path, "other"), env(stranger));
  mkdirSync(join(other.data, "nats"), { recursive: true });
  const checked = other.run("upgrade", "--check");
  expect(await checked.ended).toBe(3);
  expect(checked.err()).toMatch(/^vibeserve: no broker at tls:\S+: .*authorization.*\n$/i);
});

test("without a cluster a broker that does not answer is an answer at once", async () => {
  using place = tempDir("young-pod");
  const seed = seedOf(createUser());
  const lock = announce(place.path, { url: "nats://127.0.0.1:9", seeds: { client: seed } });
  mkdirSync(join(place.path, "nats/keys"), { recursive: true });
  writeFileSync(join(place.path, "nats/keys/coordinator.nk"), seed);
  await expect(openDataBus(loadSettings({ data: place.path }, {}), "a test")).rejects.toThrow(/^no broker at nats:\/\/127\.0\.0\.1:9: /);
  lock.release();
  let tried = 0;
  await expect(patiently(0, () => Promise.reject(new Error(`${++tried}`)))).rejects.toThrow(/^1$/);
});

test("keys are written once the API server lets a young pod through; what it answers is final", async () => {
  let asked = 0;
  await using api = await apiServer(() => (asked++ === 0 ? refusal(404, "NotFound", "no") : refusal(500, "InternalError", "broken")));
  await using network = await TcpProxy.open(api.url);
  const url = network.url.replace("nats:", "http:");
  network.refuse(2);
  const store = keySecrets({ url, namespace: "serving", prefix: "vs", caFile: null, tokenFile: null });
  expect(await store.read("server")).toBeNull();
  await expect(store.read("server")).rejects.toThrow(/answered 500: broken/);
  expect([network.refuses, asked]).toEqual([0, 2]);
});

test("keys that can't be asked for end in a message, not in a stack", async () => {
  const keys = new Site(join(dir.path, "keys-site"), { VIBESERVE_KUBERNETES_API: "http://kubernetes.example" });
  const command = keys.run("keys", "--kubernetes-secrets", "vs", "--namespace", "serving");
  expect(await command.ended).toBe(3);
  expect(command.err()).toMatch(/^vibeserve: no API server at http:\/\/kubernetes\.example: .*not HTTPS.*\n$/);
});
