import { cpSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { parseJoinLine, STREAMS } from "@vibeserve/shared";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { credentialOf } from "../../coordinator/src/broker/access.ts";
import type { Cluster } from "../../coordinator/src/broker/cluster/cluster.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { joinCluster, natsOf, startCluster, type NatsCluster } from "../kit/nats-cluster.ts";
import { use, type BrokerInUse } from "../kit/real-broker.ts";
import { factOf, startCoordinator } from "../kit/real-coordinator.ts";
import { site } from "../kit/sites.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const dir = tempDir("cluster");
const reports: { event: string; facts: Record<string, unknown> }[] = [];
let cluster: NatsCluster;
let broker: Cluster;
let inUse: BrokerInUse;

beforeAll(async () => {
  cluster = await startCluster(dir.path, 3);
  broker = await joinCluster(dir.path, cluster, { log: (event, facts) => reports.push({ event, facts }) });
  inUse = await use(broker);
});

afterAll(async () => {
  await inUse[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

/** An enrolled agent's credential, and where its account is kept by a server. */
async function enrolled(agentId: string) {
  const seed = await inUse.enroll(agentId);
  const claim = await broker.claimOf(agentId);
  const account = broker.agents.find((a) => a.agentId === agentId)?.account ?? "";
  return {
    account,
    dial: (url: string): Promise<NatsConnection> => connectBus({ servers: [url], ca: broker.ca, seed, claim, principal: agentId }),
    keptBy: (node: string) => existsSync(join(dir.path, node, "resolver", `${account}.jwt`)),
  };
}

const errorOf = async (nc: NatsConnection): Promise<string> => {
  for await (const status of nc.status()) if (status.type === "error") return status.error.message;
  return "";
};

test("streams are stored by three servers, and what each role may do there is this release's", async () => {
  expect(broker.replicas).toBe(3);
  for (const name of [STREAMS.events, STREAMS.results, "KV_vs-agents", "KV_vs-leases", "OBJ_vs-artifacts"])
    expect((await inUse.bus.jsm.streams.info(name)).config).toMatchObject({ num_replicas: 3, storage: "file" });
  expect(broker.settings).toMatchObject({ syncAlways: true, version: expect.stringMatching(/^2\./) as string });
});

test("an agent that is put out is cut off on every server at once, others stay, and its account is gone", async () => {
  const [out, stays] = [await enrolled("out"), await enrolled("stays")];
  const connections = await Promise.all(cluster.nodes.map(({ url }) => out.dial(url)));
  const other = await stays.dial(cluster.nodes[0]?.url ?? "");
  let disturbed = false;
  void (async () => {
    for await (const status of other.status()) disturbed ||= status.type === "disconnect";
  })();
  for (const nc of connections) await jetstream(nc).publish("vs.result.out.c1", "x");
  const turnedAway = connections.map(errorOf);
  await broker.expel("out");
  for (const error of await Promise.all(turnedAway))
    expect(error).toMatch(/Authorization Violation|maximum account active connections exceeded/);
  for (const { url } of cluster.nodes) await expect(out.dial(url)).rejects.toThrow(/Authorization Violation/);
  for (const { name } of cluster.nodes) expect([name, out.keptBy(name), stays.keptBy(name)]).toEqual([name, false, true]);
  await jetstream(other).publish("vs.result.stays.c1", "x");
  expect(disturbed).toBe(false);
  for (const nc of [...connections, other]) await nc.close();
});

test("put out while a server is away: the two that are there close its account, the third does when it comes back, and then it is gone", async () => {
  const out = await enrolled("out-later");
  const late = cluster.nodes[2];
  await late?.kill();
  await broker.expel("out-later");
  expect(reports.map(({ event }) => event)).toContain("broker.server-away");
  for (const { url } of cluster.nodes.slice(0, 2)) await expect(out.dial(url)).rejects.toThrow(/Authorization Violation/);
  expect(out.keptBy("nats-0")).toBe(true);
  await late?.start();
  await expect.poll(() => cluster.nodes.map(({ name }) => out.keptBy(name)), { timeout: 30_000 }).toEqual([false, false, false]);
  await expect(out.dial(late?.url ?? "")).rejects.toThrow(/Authorization Violation/);
});

test("what servers have follows what the coordinator knows at its start: an account of which nobody is enrolled is closed", async () => {
  const left = await enrolled("left");
  using own = tempDir("start");
  // As after a kill between the file of who is in and the servers, or with an older copy of that file.
  await (await joinCluster(own.path, cluster)).close();
  for (const { url } of cluster.nodes) await expect(left.dial(url)).rejects.toThrow(/Authorization Violation/);
  for (const { name } of cluster.nodes) expect(left.keptBy(name)).toBe(false);
});

test.each([
  ["a server that syncs later", { sync: 1, replicas: null }, /server nats-1 acknowledges before it syncs .* on every server/],
  [
    "fewer servers than replicas",
    { sync: -1, replicas: 3 },
    /server nats-\d stores with 2 in all, itself among them, and VIBESERVE_NATS_REPLICAS is 3/,
  ],
])("refuses %s, by name", async (_what, { sync, replicas }, words) => {
  using own = tempDir("refused");
  await using two = await startCluster(own.path, 2, { sync: (i) => (i === sync ? "2m" : "always") });
  await expect(joinCluster(own.path, two, { replicas })).rejects.toThrow(words);
});

test("the server that leads the log of events is killed while jobs run: the campaign goes on to its proof, and its chain is whole", async () => {
  using own = tempDir("leader");
  await using three = await startCluster(own.path, 3);
  await using real = await startCoordinator(own.path, {
    settings: { nats: natsOf(three) },
  });
  const started = Promise.withResolvers<undefined>();
  const agent = await real.agent("a1", {
    work: async (job, lease) => {
      started.resolve(undefined);
      await new Promise((resolve) => setTimeout(resolve, 50));
      return agent.outcome(job, lease);
    },
  });
  const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
  await started.promise;
  const nc = await connectBus(credentialOf(real.coordinator.broker, "coordinator"));
  const { leader } = (await (await jetstreamManager(nc)).streams.info(STREAMS.events)).cluster ?? {};
  await nc.close();
  const node = three.nodes.find(({ name }) => name === leader);
  expect(node).toBeDefined();
  await node?.kill();
  await actor.ended;
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  await using client = await real.client();
  expect((await client.events(actor.id)).length).toBe(actor.events.length);
  await agent[Symbol.asyncDispose]();
});

test("vibeserve up takes the cluster that its environment names, starts no server, and answers people by the context that keys wrote", async () => {
  using own = tempDir("up");
  await using one = await startCluster(own.path, 1);
  const named = { VIBESERVE_NATS_URL: one.url, VIBESERVE_NATS_KEYS: join(one.keys, "coordinator") };
  using s = site({ ...named, XDG_CONFIG_HOME: own.path });
  const up = s.at.run("up");
  await up.printed(/coordinator ready: broker tls:\/\/127\.0\.0\.1:\d+/);
  expect(existsSync(join(s.at.data, "nats", "broker.json"))).toBe(false);
  const contexts = join(own.path, "vibeserve", "contexts");
  mkdirSync(contexts, { recursive: true });
  cpSync(join(one.keys, "client", "client.json"), join(contexts, "there.json"));
  const { line } = await s.at.answer<{ line: string }>("agents", "token", "--context", "there");
  expect(parseJoinLine(line)).toMatchObject({ servers: [one.url], claim: expect.stringMatching(/^eyJ/) as string });
  await s.at.stop();
  using half = site({ VIBESERVE_NATS_URL: one.url });
  const refused = half.at.run("up");
  expect(await refused.ended).toBe(2);
  expect(refused.err()).toMatch(/needs both: VIBESERVE_NATS_URL, and VIBESERVE_NATS_KEYS/);
});
