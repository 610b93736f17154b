import { randomFillSync } from "node:crypto";
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Objm } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, it } from "vitest";
import { BUCKETS, nameSubject, sha256 } from "@vibeserve/shared";
import { pruneArtifacts } from "../../coordinator/src/artifact/prune.ts";
import { fanOut } from "../../coordinator/src/benchmarks/fleet/fan-out.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { ContentCache } from "../../gpu-agent/src/artifact/content-cache.ts";
import { digestOfFile } from "../../gpu-agent/src/artifact/file-digest.ts";
import { ObjectArtifacts } from "../../gpu-agent/src/artifact/object-artifacts.ts";
import { BuildCache } from "../../gpu-agent/src/build/build-cache.ts";
import { abortable } from "../../gpu-agent/src/worker/abortable.ts";
import { failureOf } from "../../gpu-agent/src/worker/job-error.ts";
import { forge, startBroker, type RealBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";

const dir = tempDir("transfer");
const STREAM = `OBJ_${BUCKETS.artifacts}`;
let broker: RealBroker;
let agents = 0;

beforeAll(async () => {
  broker = await startBroker(dir.path);
});
afterAll(async () => {
  await broker[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

/** An agent with its own connection and cache. */
async function agent(): Promise<{ nc: NatsConnection; artifacts: ObjectArtifacts; cache: string }> {
  const id = `t${agents++}`;
  const nc = await broker.connectAgent(id, await broker.enroll(id));
  const cache = join(dir.path, id);
  return { nc, artifacts: new ObjectArtifacts(nc, new ContentCache(cache)), cache };
}

const MB = 1_000_000;
const content = (bytes: number): Buffer => randomFillSync(Buffer.alloc(bytes));
const reaches = async (bytes: () => number, atLeast: number): Promise<void> => {
  while (bytes() < atLeast) await sleep(1);
};

it("what is there is not sent again, and five who ask at once get one transfer", async () => {
  const [first, second] = [await agent(), await agent()];
  const bytes = content(8 * MB);
  const ref = await first.artifacts.put(bytes);
  const sent = second.nc.stats().outBytes;
  expect(await second.artifacts.put(bytes)).toEqual(ref);
  expect(second.nc.stats().outBytes - sent).toBeLessThan(0.1 * MB);
  const third = await agent();
  const before = third.nc.stats().inBytes;
  const got = await Promise.all([1, 2, 3, 4, 5].map(() => third.artifacts.getFile(ref)));
  expect(new Set(got).size).toBe(1);
  expect(third.nc.stats().inBytes - before).toBeLessThan(8 * MB * 1.1);
  expect(Buffer.compare(await third.artifacts.get(ref), bytes)).toBe(0);
});

it("a fetch goes on where it stopped when the broker comes back, and so does a sending", async () => {
  const [writer, reader] = [await agent(), await agent()];
  const bytes = content(24 * MB);
  const sending = writer.artifacts.put(bytes);
  await reaches(() => writer.nc.stats().outBytes, 6 * MB);
  await broker.broker.restart();
  const ref = await sending;
  const before = reader.nc.stats().inBytes;
  const fetching = reader.artifacts.get(ref);
  await reaches(() => reader.nc.stats().inBytes - before, 6 * MB);
  await broker.broker.restart();
  expect(Buffer.compare(await fetching, bytes)).toBe(0);
  // The chunks that were under way, and no more, came or went twice.
  expect(reader.nc.stats().inBytes - before).toBeLessThan(24 * MB * 1.1);
  const info = await (await new Objm(broker.bus.nc).open(BUCKETS.artifacts)).info(ref.digest);
  const stored = await broker.bus.jsm.streams.info(STREAM, { subjects_filter: `$O.${BUCKETS.artifacts}.C.${info?.nuid ?? ""}` });
  expect(Object.values(stored.state.subjects ?? {})).toEqual([info?.chunks]);
}, 60_000);

it("chunks that go on for ever, or of another file, are refused, and nothing of them stays", async () => {
  const { artifacts, cache } = await agent();
  const bytes = content(MB);
  const digest = sha256("what was asked for");
  const forged = await forge(broker.bus, digest, bytes);
  await expect(artifacts.get({ digest, bytes: MB })).rejects.toMatchObject({ code: "artifact-corrupt" });
  await broker.bus.js.publish(`$O.${BUCKETS.artifacts}.C.${forged}`, content(MB / 2));
  const meta = nameSubject(digest);
  const stored = await broker.bus.jsm.direct.getMessage(STREAM, { last_by_subj: meta });
  const info = stored?.json() as { size: number; chunks: number };
  await broker.bus.js.publish(meta, JSON.stringify({ ...info, size: MB + 10, chunks: 1e9 }));
  await expect(artifacts.get({ digest, bytes: MB + 10 })).rejects.toMatchObject({ code: "artifact-missing" });
  expect(readdirSync(cache)).toEqual([]);
});

it("a cache keeps near its quota, and lets go what was not used for longest", async () => {
  const cache = new ContentCache(join(dir.path, "small"), 1000);
  const [used, unused] = [await cache.put(content(300)), await cache.put(content(300))];
  await cache.put(content(300));
  await sleep(20);
  expect(await cache.find(used)).not.toBeNull();
  await cache.put(content(300));
  expect([await cache.find(used), await cache.find(unused)]).toEqual([expect.any(String), null]);
  const folder = join(dir.path, "builds");
  mkdirSync(join(folder, "from"), { recursive: true });
  writeFileSync(join(folder, "from", "stack"), content(600));
  const builds = new BuildCache(folder, 1000);
  const keys = ["a", "b"].map((c) => c.repeat(64));
  const digest = await digestOfFile(join(folder, "from", "stack"));
  for (const key of keys) await builds.add(key, join(folder, "from"), [{ path: "stack", sha256: digest, bytes: 600, executable: true }]);
  expect(await Promise.all(keys.map(async (key) => (await builds.find(key)) !== null))).toEqual([false, true]);
});

it("a disk that is full while bytes come or are unpacked keeps nothing half-done, and is the device's failure", async (test) => {
  const disk = join(dir.path, "disk");
  mkdirSync(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], { stdio: "ignore" });
  } catch {
    return test.skip("a small disk needs the right to mount one");
  }
  try {
    const writer = await agent();
    const ref = await writer.artifacts.put(content(8 * MB));
    const id = "full";
    const nc = await broker.connectAgent(id, await broker.enroll(id));
    const failed = await new ObjectArtifacts(nc, new ContentCache(join(disk, "cache"))).getFile(ref).catch((e: unknown) => e);
    expect(failureOf(failed)).toMatchObject({ attribution: "device", code: "disk-full" });
    expect(readdirSync(join(disk, "cache"))).toEqual([]);
    const builds = new BuildCache(join(disk, "builds"));
    const filling = builds.receive("a".repeat(64), async (draft) => {
      writeFileSync(join(draft, "stack"), content(8 * MB));
      return [];
    });
    expect(failureOf(await filling.catch((e: unknown) => e))).toMatchObject({ attribution: "device", code: "disk-full" });
    expect(readdirSync(join(disk, "builds"))).toEqual([]);
  } finally {
    execFileSync("umount", [disk]);
  }
});

it("a job that is stopped does not wait for a transfer", async () => {
  const never = new Promise<never>(() => undefined);
  const abort = new AbortController();
  const store = abortable({ put: () => never, putFile: () => never, get: () => never, getFile: () => never }, abort.signal);
  const waiting = [store.get({ digest: "", bytes: 1 }), store.putFile("")];
  abort.abort(new Error("the job is over"));
  for (const call of [...waiting, store.put(Buffer.alloc(1))]) await expect(call).rejects.toThrow("the job is over");
});

it("pruning removes what nobody needs and is old, and transfers that were given up; counts only when asked to", async () => {
  const { artifacts } = await agent();
  const [needed, old] = [await artifacts.put(content(3 * MB)), await artifacts.put(content(2 * MB))];
  await broker.bus.js.publish(`$O.${BUCKETS.artifacts}.C.givenup`, "half");
  const prune = (at: number, dryRun = false) =>
    pruneArtifacts({ ...broker.bus, needed: () => new Set([needed.digest]), olderThanMs: 3_600_000, dryRun, now: () => at });
  expect(await prune(Date.now())).toMatchObject({ removed: 0, unfinished: 0 });
  const later = Date.now() + 2 * 3_600_000;
  const counted = await prune(later, true);
  expect(await prune(later)).toEqual({ ...counted, dryRun: false });
  expect(counted.unfinished).toBeGreaterThanOrEqual(1);
  expect(counted.bytes).toBeGreaterThanOrEqual(2 * MB);
  expect(await prune(later)).toMatchObject({ removed: 0, bytes: 0, kept: 1, unfinished: 0, more: false });
  const reader = await agent();
  expect((await reader.artifacts.get(needed)).length).toBe(3 * MB);
  await expect(reader.artifacts.get(old)).rejects.toMatchObject({ code: "artifact-missing" });
  // What was pruned can be put again.
  await artifacts.put(await artifacts.get(old));
  expect((await reader.artifacts.get(old)).length).toBe(2 * MB);
});

it("an artifact crosses once per node, whoever counts", async () => {
  await using own = new AsyncDisposableStack();
  const settings = { ...loadSettings({}), data: dir.path };
  const site = { ...broker.bus, broker: broker.broker, settings, log: () => undefined, signal: new AbortController().signal, own };
  const [ratio] = await fanOut(site, 12 * MB, 4);
  expect(ratio).toMatchObject({ ok: true });
  expect(ratio?.value).toBeGreaterThan(1);
  expect(readdirSync(dir.path)).not.toContain("fan-out");
}, 120_000);
