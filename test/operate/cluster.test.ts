import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { writePrivate } from "../../coordinator/src/broker/principals.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { backup } from "../../coordinator/src/operate/backup.ts";
import { dialCoordinator } from "../../coordinator/src/operate/doctor/dialled.ts";
import { restore } from "../../coordinator/src/operate/restore.ts";
import { smoke } from "../../coordinator/src/operate/smoke.ts";
import { natsOf, startCluster } from "../kit/nats-cluster.ts";
import { startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { look, openWard } from "./doctor-kit.ts";

vi.setConfig({ testTimeout: 120_000 });

const passes = async (real: RealCoordinator): Promise<void> => {
  await using client = await real.client();
  const passed = await smoke(client, "stacks/tiny", AbortSignal.timeout(60_000), () => undefined);
  expect(passed.ok, JSON.stringify(passed.steps)).toBe(true);
};

test("smoke, backup beside a coordinator in another pod, and restore work with a NATS cluster; tokens rise there too", async () => {
  using dir = tempDir("operate-cluster");
  const file = join(dir.path, "b.tar");
  const [one, two] = ["one", "two"].map((name) => join(dir.path, name)) as [string, string];
  {
    await using cluster = await startCluster(one, 3);
    const nats = natsOf(cluster);
    await using real = await startCoordinator(one, { settings: { nats } });
    await passes(real);
    const settings = { ...loadSettings({ data: join(one, "data") }), nats };
    // Whoever asks sees no process of it: neither lock nor context is there.
    expect(await backup({ settings, to: file, withKeys: false, version: "0.1.0" })).toMatchObject({
      campaigns: [{ ended: true }],
      unreadable: [],
    });
    writePrivate(join(settings.data, "client.json"), "{}");
  }
  await using cluster = await startCluster(two, 3);
  const settings = { ...loadSettings({ data: join(two, "data") }), nats: natsOf(cluster) };
  const { floor } = await restore({ settings, file, version: "0.1.0" });
  await expect(restore({ settings: { ...settings, data: join(two, "again") }, file, version: "0.1.0" })).rejects.toThrow(
    /holds \d+ messages already/,
  );
  await using real = await startCoordinator(two, { settings: { nats: settings.nats } });
  await real.coordinator.campaigns.all;
  expect(real.coordinator.campaigns.list().map((c) => c.state.ended?.outcome)).toEqual(["proven"]);
  await passes(real);
  const tokens = real.coordinator.campaigns
    .list()[0]
    ?.events.flatMap(({ event: { fact } }) => (fact.type === "job.settled" ? [fact.result.leaseToken] : []));
  expect(Math.min(...(tokens ?? [0]))).toBeGreaterThan(floor);
});

test("doctor names the server of a cluster that does not sync, and the copies that streams lack", async () => {
  using dir = tempDir("operate-cluster");
  await using cluster = await startCluster(join(dir.path, "nats"), 3, { sync: (i) => (i === 1 ? "2m" : "always") });
  mkdirSync(join(dir.path, "ward"));
  await using ward = await openWard(join(dir.path, "ward"));
  const nats = natsOf(cluster);
  const at = { ...ward.patient, settings: { ...ward.patient.settings, nats } };
  ward.redial(() => dialCoordinator(at.settings));
  expect(await look("broker-reachable", at)).toMatchObject({ status: "ok" });
  expect(await look("broker-sync", at)).toMatchObject({ status: "fail", saw: expect.stringMatching(/^nats-1 acknowledges/) as string });
});
