import { join } from "node:path";
import { JetStreamApiError, jetstreamManager } from "@nats-io/jetstream";
import { STREAMS } from "@vibeserve/shared";
import { expect, test, vi } from "vitest";
import { credentialOf } from "../../coordinator/src/broker/access.ts";
import { StoreGuard } from "../../coordinator/src/broker/store-guard.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { Observer } from "../../coordinator/src/observe/observer.ts";
import { natsOf, startCluster } from "../kit/nats-cluster.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

vi.setConfig({ testTimeout: 120_000 });
const SOON = { timeout: 60_000, interval: 200 };
const options = { baselines: [], repeat: null };

async function observed(dir: string, settings: Parameters<typeof startCoordinator>[1] = {}) {
  const observer = await Observer.open({ listen: { host: "127.0.0.1", port: 0 }, lockFile: join(dir, "up.lock") });
  const real = await startCoordinator(dir, { ...settings, observer });
  const get = async (path: string): Promise<string> => (await fetch(`http://127.0.0.1:${observer.port}${path}`)).text();
  return {
    real,
    /** What readyz says of the store. */
    store: async () => /^\[.\]store (.*)$/m.exec(await get("/readyz?verbose"))?.[1] ?? "",
    stalledSeconds: async () => Number(/^vibeserve_store_stalled_seconds (.*)$/m.exec(await get("/metrics"))?.[1]),
    [Symbol.asyncDispose]: async () => {
      await real[Symbol.asyncDispose]();
      await observer[Symbol.asyncDispose]();
    },
  };
}
/** A job's result waits until it is let go. */
async function heldAgent(real: RealCoordinator) {
  const [given, go] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
  const agent = await real.agent("a1", {
    work: async (job, lease) => {
      given.resolve(undefined);
      await go.promise;
      return agent.outcome(job, lease);
    },
  });
  return { agent, given: given.promise, go: () => go.resolve(undefined) };
}

test("a cluster that loses its majority: readiness says so at once, the metric rises while something is to be stored, and all goes on when it is back", async () => {
  using dir = tempDir("quorum");
  await using three = await startCluster(dir.path, 3);
  await using it = await observed(dir.path, { settings: { nats: natsOf(three) } });
  const { real } = it;
  const held = await heldAgent(real);
  const actor = await real.coordinator.submit(tinyTarget, options);
  await held.given;
  expect(await it.store()).toBe("ok");
  expect(await it.stalledSeconds()).toBe(0);

  const [, ...others] = three.nodes;
  await Promise.all(others.map((node) => node.kill()));
  await vi.waitFor(async () => expect(await it.store()).toMatch(/^failed: .*bring a majority of the broker's servers back$/), SOON);
  void actor.note("budget", "something to store");
  const failed = real.reported("store.failed");
  expect(await failed).toMatchObject({ why: expect.stringMatching(/is not ours to restart: look at the disks/) as string });
  await vi.waitFor(
    async () =>
      expect(await it.store()).toMatch(
        /^failed: the broker does not store: (?:no server answers for the stream|timeout) \(\d+ times in a row; .* not ours to restart/,
      ),
    SOON,
  );
  expect(await it.stalledSeconds()).toBeGreaterThan(0);
  expect(actor.waits.join()).toMatch(/the broker does not store/);

  await Promise.all(others.map((node) => node.start()));
  held.go();
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  await vi.waitFor(async () => expect(await it.store()).toBe("ok"), SOON);
  expect(await it.stalledSeconds()).toBe(0);
  // Each try failed alike; it is told once.
  expect(real.reports.filter(({ event }) => event === "store.failed")).toHaveLength(1);
  await held.agent[Symbol.asyncDispose]();
});

test("a limit that is reached: its own words are told, the server is not restarted for it, and raising it is enough", async () => {
  using dir = tempDir("limit");
  await using it = await observed(dir.path);
  const { real } = it;
  const held = await heldAgent(real);
  const actor = await real.coordinator.submit(tinyTarget, options);
  await held.given;
  const nc = await connectBus(credentialOf(real.coordinator.broker, "coordinator"));
  const { streams } = await jetstreamManager(nc);
  const { state } = await streams.info(STREAMS.events);
  await streams.update(STREAMS.events, { max_bytes: state.bytes });
  const { pid } = real.coordinator.broker;
  void actor.note("budget", "something to store");
  await vi.waitFor(
    async () => expect(await it.store()).toMatch(/^failed: the broker does not store: maximum bytes exceeded \(\d+ times in a row\)$/),
    SOON,
  );
  expect(await it.stalledSeconds()).toBeGreaterThan(0);
  await streams.update(STREAMS.events, { max_bytes: -1 });
  held.go();
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  expect(await it.store()).toBe("ok");
  expect(real.coordinator.broker.pid).toBe(pid);
  await nc.close();
  await held.agent[Symbol.asyncDispose]();
});

test("a server that says nothing is restarted after some stores over some time, one that says why is not", async () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  using _real = { [Symbol.dispose]: () => vi.useRealTimers() };
  using dir = tempDir("guard");
  let restarts = 0;
  const restart = () => {
    restarts++;
    return Promise.resolve();
  };
  const guard = new StoreGuard({ dir: dir.path, minFreeBytes: 1, restart, log: () => undefined });
  const refused = new JetStreamApiError({ code: 503, err_code: 10077, description: "maximum bytes exceeded" });
  const fails = async (times: number, error: Error, apartMs: number) => {
    for (let i = 0; i < times; i++) {
      await guard.stalled(error);
      vi.advanceTimersByTime(apartMs);
    }
  };
  await fails(9, refused, 2_000);
  expect([restarts, guard.trouble]).toEqual([0, "the broker does not store: maximum bytes exceeded (9 times in a row)"]);
  await fails(5, new Error("timeout"), 2_500);
  // The fifth came 10 s after the first.
  expect([restarts, guard.trouble]).toEqual([1, "the broker does not store: timeout (14 times in a row)"]);
  guard.stored();
  expect([guard.trouble, guard.stalledMs]).toEqual([null, 0]);

  // Many campaigns meet one slow moment together.
  await fails(100, new Error("timeout"), 0);
  expect([restarts, guard.trouble]).toEqual([1, null]);
});

test("what a full disk has failed, or what was given up, is no trouble any more once a store is answered or nobody asks again", async () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  using _real = { [Symbol.dispose]: () => vi.useRealTimers() };
  using dir = tempDir("guard");
  const with_ = (minFreeBytes: number) =>
    new StoreGuard({ dir: dir.path, minFreeBytes, restart: () => Promise.resolve(), log: () => undefined });
  const full = with_(2 ** 60);
  await full.stalled(new Error("timeout"));
  expect(full.trouble).toMatch(/^the disk of .* is full/);
  full.stored();
  expect(full.trouble).toBeNull();

  const guard = with_(1);
  const refused = new JetStreamApiError({ code: 503, err_code: 10008, description: "no quorum" });
  for (let i = 0; i < 5; i++) {
    vi.advanceTimersByTime(30_000);
    await guard.stalled(refused);
  }
  expect([guard.trouble, guard.stalledMs]).toEqual(["the broker does not store: no quorum (5 times in a row)", 120_000]);
  vi.advanceTimersByTime(61_000);
  expect([guard.trouble, guard.stalledMs]).toEqual([null, 0]);
});
