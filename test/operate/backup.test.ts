import { existsSync, mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createRng, STREAMS, subjects, type CampaignEvent, type JobResult } from "@vibeserve/shared";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { CampaignRepository } from "../../coordinator/src/checkpoint/repository.ts";
import { loadSettings, type Settings } from "../../coordinator/src/config.ts";
import { ArchiveReader } from "../../coordinator/src/operate/archive-file.ts";
import { backup } from "../../coordinator/src/operate/backup.ts";
import { BackupManifest, MANIFEST } from "../../coordinator/src/operate/backup-manifest.ts";
import { openDataBus } from "../../coordinator/src/operate/data-bus.ts";
import { floorAt, restore, RestoreRefusedError } from "../../coordinator/src/operate/restore.ts";
import { natsServer } from "../kit/real-broker.ts";
import { factOf, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";
import { Site } from "../kit/vibeserve-process.ts";
import { announce, openWard, put } from "./doctor-kit.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const settingsOf = (data: string): Settings => ({ ...loadSettings({ data }), natsServer });

const eventsOf = (real: RealCoordinator, id: string): CampaignEvent[] =>
  real.coordinator.campaigns
    .list()
    .find((c) => c.id === id)
    ?.events.map(({ event }) => event) ?? [];
const resultsIn = (events: readonly CampaignEvent[]): JobResult[] =>
  events.flatMap(({ fact }) => (fact.type === "job.settled" ? [fact.result] : []));

// The moment is drawn: early, in the middle of the search, at a crowning.
test.each([1, 2, 3])(
  "a backup of running campaigns becomes a coordinator that goes on: nothing is lost, no token is given twice (%i)",
  async (seed) => {
    using dir = tempDir("backup");
    const [file, other] = [join(dir.path, "b.tar"), join(dir.path, "other")];
    const random = createRng(`backup ${seed}`);
    const after = 2 + Math.floor(random.next() * 16);
    const tokens: number[] = [];
    const late: JobResult[] = [];
    let id = "";
    let agentSeed = "";
    let before: CampaignEvent[] = [];
    let manifest: BackupManifest;
    {
      await using real = await startCoordinator(dir.path);
      const data = join(dir.path, "data");
      const lock = announce(data, real.coordinator.broker);
      agentSeed = await real.enroll("a1");
      await using agent = await real.agent("a1", {
        work: async (job, lease) => {
          tokens.push(lease.token);
          await new Promise((resolve) => setTimeout(resolve, 5 + 20 * random.next()));
          const outcome = await agent.outcome(job, lease);
          late.push(agent.signed(job, lease, outcome));
          return outcome;
        },
      });
      const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
      id = actor.id;
      let settled = 0;
      await factOf(real, actor, "job.settled", () => ++settled > after);
      manifest = await backup({ settings: settingsOf(data), to: file, withKeys: true, version: "0.1.0" });
      expect(manifest).toMatchObject({ running: true, keys: true, unreadable: [], artifacts: { corrupt: [] } });
      expect(statSync(file).mode & 0o777).toBe(0o600);
      // What the coordinator does from here on is what the restored one can't know of.
      await actor.ended;
      before = eventsOf(real, id);
      lock.release();
    }
    mkdirSync(other);
    const restored = await restore({ settings: settingsOf(join(other, "data")), file, version: "0.1.0" });
    expect(restored.floor).toBeGreaterThan(Math.max(...tokens));
    await using real = await startCoordinator(other);
    await real.coordinator.campaigns.all;
    const taken = manifest.campaigns.find((c) => c.id === id)?.events ?? 0;
    expect(taken).toBeGreaterThan(0);
    expect(eventsOf(real, id).slice(0, taken)).toEqual(before.slice(0, taken));
    const actor = real.coordinator.campaigns.list().find((c) => c.id === id);
    if (!actor) throw new Error("the campaign did not come back");
    await using agent = await real.agentWith("a1", agentSeed);
    // What the agent did for the coordinator that is gone comes in now, under tokens of then.
    for (const result of late) await agent.publish(result);
    await actor.ended;
    expect(actor.state.ended?.outcome).toBe("proven");
    await expect.poll(() => new Set(resultsIn(eventsOf(real, id)).map((r) => r.sig)).size).toBeGreaterThanOrEqual(late.length);
    const events = eventsOf(real, id);
    const sigs = new Set(resultsIn(events).map((r) => r.sig));
    expect(late.filter((r) => !sigs.has(r.sig)).map((r) => r.jobId)).toEqual([]);
    for (const lease of agent.leases) expect(lease.token).toBeGreaterThan(restored.floor);
    const accepted = events.slice(taken).flatMap(({ fact }) => (fact.type === "job.settled" && fact.accepted ? [fact.result] : []));
    expect(accepted.length).toBeGreaterThan(0);
    for (const result of accepted) expect(result.leaseToken).toBeGreaterThan(restored.floor);
    const repository = await CampaignRepository.open(
      { dir: join(other, "data/git"), path: settingsOf(other).path, putArtifact: () => Promise.reject(new Error("none")) },
      id,
    );
    expect(await repository.championCommit()).toBe(actor.state.champions.at(-1)?.git.commit);
  },
);

const LONG = `transcripts/tiny-mwx8o8iz/${"experiment-".repeat(10)}1.json`;

test("results that no log has taken in yet are in it, whatever gaps their numbers have, and wait again after a restore", async () => {
  using dir = tempDir("backup");
  const file = join(dir.path, "b.tar");
  {
    await using ward = await openWard(dir.path);
    const { js, jsm } = ward.real.bus;
    put(ward.patient.data, LONG, "a name of over 100 bytes", 0o600);
    for (const text of ["one", "two", "three"]) await js.publish(subjects.result("a1", "c1"), Buffer.from(text));
    await jsm.streams.deleteMessage(STREAMS.results, 2);
    expect(await backup({ settings: ward.patient.settings, to: file, withKeys: false, version: "0.1.0" })).toMatchObject({
      results: 2,
      keys: false,
    });
  }
  const settings = settingsOf(join(dir.path, "other"));
  await restore({ settings, file, version: "0.1.0" });
  await using data = await openDataBus(settings, "a test");
  const { messages } = (await data.bus.jsm.streams.info(STREAMS.results)).state;
  expect(messages).toBe(2);
  const read = async (seq: number) => (await data.bus.jsm.streams.getMessage(STREAMS.results, { seq }))?.string();
  expect([await read(1), await read(2)]).toEqual(["one", "three"]);
  expect(readFileSync(join(settings.data, LONG), "utf8")).toBe("a name of over 100 bytes");
});

describe("a backup file", () => {
  const dir = tempDir("backup-file");
  const site = new Site(dir.path);
  const file = join(dir.path, "full.tar");
  const run = async (of: Site, ...args: string[]) => {
    const command = of.run(...args);
    return { code: await command.ended, out: command.out(), err: command.err() };
  };

  beforeAll(async () => {
    const up = site.run("up");
    await up.printed(/coordinator ready/);
    expect((await run(site, "smoke", "--seed", "stacks/tiny")).code).toBe(0);
    up.child.kill("SIGTERM");
    await up.ended;
    const made = await run(site, "backup", "--to", file, "--json");
    expect(made, made.err).toMatchObject({ code: 0 });
    expect(JSON.parse(made.out)).toMatchObject({ kind: "backup", running: false, keys: false, campaigns: [{ ended: true }] });
  });
  afterAll(() => {
    site.cleanUp();
    dir[Symbol.dispose]();
  });

  test("restored, says the same of campaigns and champions; without keys the keys are new", async () => {
    const other = new Site(join(dir.path, "other"));
    expect((await run(other, "restore", file)).code).toBe(0);
    for (const verb of ["champions", "findings"])
      expect((await run(other, verb, "--json")).out).toBe((await run(site, verb, "--json")).out);
    const up = other.run("up");
    await up.printed(/coordinator ready/);
    const listed = JSON.parse((await run(other, "campaigns", "--json")).out) as unknown;
    expect(listed).toMatchObject({ campaigns: [{ target: "smoke-simulated", outcome: "proven" }], unreadable: [] });
    up.child.kill("SIGTERM");
    await up.ended;
    const key = (of: Site) => readFileSync(join(of.data, "nats/keys/coordinator.nk"), "utf8");
    expect(key(other)).not.toBe(key(site));
    other.cleanUp();
  });

  test("is not written over another, nor taken of a folder that is none", async () => {
    expect(await run(site, "backup", "--to", file)).toMatchObject({ code: 2, err: expect.stringMatching(/exists already/) as string });
    const empty = new Site(join(dir.path, "empty"));
    expect(await run(empty, "backup", "--to", join(dir.path, "no.tar"))).toMatchObject({ code: 2 });
    expect(existsSync(join(dir.path, "no.tar"))).toBe(false);
  });

  /** A copy with something done to it. */
  async function spoiled(name: string, change: (path: string, archive: ArchiveReader) => Promise<void> | void): Promise<string> {
    const path = join(dir.path, `${name}.tar`);
    writeFileSync(path, readFileSync(file));
    await using archive = await ArchiveReader.open(file);
    await change(path, archive);
    return path;
  }
  const flip = (path: string, at: number) => {
    const bytes = readFileSync(path);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);
  };
  const eventsMember = (archive: ArchiveReader) => [...archive.members.values()].find((m) => m.path.startsWith("events/"));

  test.each<[string, (path: string, archive: ArchiveReader) => Promise<void> | void, RegExp]>([
    [
      "cut off in a member",
      (p, a) => truncateSync(p, (eventsMember(a)?.offset ?? 0) + 10),
      /member events\/smoke-simulated-\w+\.jsonl: the file ends in the middle/,
    ],
    ["cut off between members", (p, a) => truncateSync(p, (eventsMember(a)?.offset ?? 0) - 512), /was cut off/],
    [
      "a bit turned over",
      (p, a) => flip(p, (eventsMember(a)?.offset ?? 0) + 100),
      /member events\/smoke-simulated-\w+\.jsonl: its \d+ bytes hash to/,
    ],
    ["a bit in a header", (p, a) => flip(p, (eventsMember(a)?.offset ?? 0) - 500), /header's checksum is wrong/],
  ])("that is damaged is refused before anything is written, and says where: %s", async (name, change, why) => {
    const path = await spoiled(name.replaceAll(" ", "-"), change);
    const other = new Site(join(dir.path, `into-${name.replaceAll(" ", "-")}`));
    expect(await run(other, "restore", path)).toMatchObject({ code: 1, err: expect.stringMatching(why) as string });
    expect(existsSync(other.data)).toBe(false);
  });

  test("is refused by an older release, for a folder that is not empty, and where the clock is behind it", async () => {
    const manifestOf = async () => {
      await using archive = await ArchiveReader.open(file);
      return BackupManifest.parse(JSON.parse((await archive.read(MANIFEST)).toString("utf8")));
    };
    const newer = await spoiled("newer", async (path, archive) => {
      const { offset = 0, bytes = 0 } = archive.members.get(MANIFEST) ?? {};
      const text = readFileSync(path, "latin1");
      const changed = text.slice(offset, offset + bytes).replace('"protocol": 1', '"protocol": 7');
      writeFileSync(path, Buffer.from(text.slice(0, offset) + changed + text.slice(offset + bytes), "latin1"));
      await Promise.resolve();
    });
    const other = new Site(join(dir.path, "refused"));
    expect(await run(other, "restore", newer)).toMatchObject({ code: 2, err: expect.stringMatching(/wrote protocol 7/) as string });
    expect(await run(other, "restore", join(dir.path, "none.tar"))).toMatchObject({
      code: 2,
      err: expect.stringMatching(/there is no file/) as string,
    });
    mkdirSync(other.data);
    writeFileSync(join(other.data, "something"), "");
    expect(await run(other, "restore", file)).toMatchObject({
      code: 2,
      err: expect.stringMatching(/is not empty \(something\)/) as string,
    });
    const manifest = await manifestOf();
    expect(() => floorAt(manifest.at - 1, manifest)).toThrow(RestoreRefusedError);
    const [first, second] = [floorAt(manifest.at + 1, manifest), floorAt(manifest.at + 2, manifest)];
    expect(first).toBeGreaterThan(manifest.leases.last);
    expect(second - first).toBe(1024);
    expect(Number.isSafeInteger(floorAt(Date.UTC(2200, 0), manifest))).toBe(true);
  });

  test("that was not restored to the end is no data folder", async () => {
    const other = new Site(join(dir.path, "half"));
    mkdirSync(other.data);
    writeFileSync(join(other.data, "restore.unfinished"), "{}");
    expect(await run(other, "up")).toMatchObject({ code: 2, err: expect.stringMatching(/restore that did not end/) as string });
  });
});
