import { jetstream } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { headers, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, it } from "vitest";
import { BUCKETS, chunkSubject, nameSubject, objectName, sha256, type ArtifactRef } from "@vibeserve/shared";
import { pruneArtifacts } from "../../coordinator/src/artifact/prune.ts";
import { ContentCache } from "../../gpu-agent/src/artifact/content-cache.ts";
import { ObjectArtifacts } from "../../gpu-agent/src/artifact/object-artifacts.ts";
import { ensureStreams } from "../../coordinator/src/bus/streams.ts";
import { startBroker, type RealBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";

/** What an agent that is not what it should be can do to artifacts that are not its own: nothing. */
const dir = tempDir("artifact-trust");
const STREAM = `OBJ_${BUCKETS.artifacts}`;
const bytes = Buffer.from("what a campaign needs");
let broker: RealBroker;
let honest: ObjectArtifacts;
let rogue: NatsConnection;
let ref: ArtifactRef;

beforeAll(async () => {
  broker = await startBroker(dir.path);
  const nc = await broker.connectAgent("a1", await broker.enroll("a1"));
  honest = new ObjectArtifacts(nc, new ContentCache(`${dir.path}/a1`));
  rogue = await broker.connectAgent("a2", await broker.enroll("a2"));
  ref = await honest.put(bytes);
});
afterAll(async () => {
  await broker[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

const stored = async (filter: string): Promise<Record<string, number>> =>
  (await broker.bus.jsm.streams.info(STREAM, { subjects_filter: filter })).state.subjects ?? {};
const nuidOf = async (digest: string): Promise<string> =>
  (await (await new Objm(broker.bus.nc).open(BUCKETS.artifacts)).info(digest))?.nuid ?? "none";
/** As another agent gets it, which has no copy. */
const seenBy = async (id: string, wanted: ArtifactRef): Promise<Buffer> => {
  const nc = await broker.connectAgent(id, await broker.enroll(id));
  return Buffer.from(await new ObjectArtifacts(nc, new ContentCache(`${dir.path}/${id}`)).get(wanted));
};
const publishes = (subject: string, what: Buffer | string, rollup?: "sub" | "all") => {
  const h = headers();
  if (rollup) h.set("Nats-Rollup", rollup);
  return jetstream(rogue).publish(subject, what, { headers: h, timeout: 2_000 });
};

it("an agent's chunks lie under its own subject, and the name that finds them is the coordinator's", async () => {
  const nuid = await nuidOf(ref.digest);
  expect(nuid).toMatch(/^a1\.[0-9a-f]{22}$/);
  expect(await stored(chunkSubject(nuid))).toEqual({ [chunkSubject(nuid)]: 1 });
});

it("a rollup header purges nothing: the broker refuses the message", async () => {
  const before = await stored(">");
  for (const rollup of ["sub", "all"] as const)
    await expect(publishes(chunkSubject("cafecafecafecafe"), "x", rollup)).rejects.toThrow(/rollup not permitted/);
  expect(await stored(">")).toEqual(before);
});

it("chunks that say another's transfer land beside it, not in it", async () => {
  const [, id = ""] = (await nuidOf(ref.digest)).split(".");
  await publishes(chunkSubject(id), "not what it should be");
  expect(await stored(chunkSubject(`a2.${id}`))).toEqual({ [chunkSubject(`a2.${id}`)]: 1 });
  expect(await seenBy("r1", ref)).toEqual(bytes);
});

it("a name for other bytes, for another's chunks, in tiny chunks or of nothing is refused, and what it was for is gone", async () => {
  const forged = Buffer.from("what a rogue would like it to be");
  const nuid = "beefbeefbeefbeef";
  const names = (r: ArtifactRef, of: string, chunks = 1) => publishes(nameSubject(r.digest), objectName(r, of, chunks, new Date()), "sub");
  await publishes(chunkSubject(nuid), forged);
  await expect(names({ digest: ref.digest, bytes: forged.length }, nuid)).rejects.toThrow(/corrupt: its bytes hash to/);
  expect(await stored(chunkSubject(`a2.${nuid}`))).toEqual({});
  await expect(names({ digest: ref.digest, bytes: bytes.length }, (await nuidOf(ref.digest)).slice(3))).rejects.toThrow(
    /corrupt|lacks chunks/,
  );
  await expect(names({ digest: ref.digest, bytes: bytes.length }, await nuidOf(ref.digest))).rejects.toThrow(/not a name/);
  await expect(names({ digest: sha256("many"), bytes: 1_000_000 }, nuid, 1_000_000)).rejects.toThrow(/too many chunks/);
  await expect(names({ digest: sha256("none"), bytes: 5 }, nuid)).rejects.toThrow(/lacks chunks/);
  await expect(publishes(nameSubject(ref.digest), "{")).rejects.toThrow(/not a name/);
  expect(await nuidOf(ref.digest)).toMatch(/^a1\./);
  expect(await seenBy("r2", ref)).toEqual(bytes);
});

it("an agent of the release before, whose object store writes the name itself with a rollup header, still puts artifacts", async () => {
  const old = Buffer.alloc(300_000, 7);
  await (await new Objm(rogue).open(BUCKETS.artifacts)).putBlob({ name: sha256(old) }, old);
  expect(await nuidOf(sha256(old))).toMatch(/^a2\./);
  expect(await seenBy("r3", { digest: sha256(old), bytes: old.length })).toEqual(old);
});

it("a name that an older release's agent wrote for another's chunks takes them from nobody when it is pruned", async () => {
  const nuid = await nuidOf(ref.digest);
  const unneeded = { digest: sha256("unneeded"), bytes: bytes.length };
  await broker.bus.js.publish(nameSubject(unneeded.digest), objectName(unneeded, nuid, 1, new Date(1_000_000)));
  const pruned = await pruneArtifacts({
    ...{ ...broker.bus, needed: () => new Set([ref.digest]), dryRun: false },
    ...{ olderThanMs: 1_000_000, now: () => Date.now() },
  });
  expect(pruned.removed).toBe(1);
  expect(await stored(nameSubject(unneeded.digest))).toEqual({});
  expect(await seenBy("r4", ref)).toEqual(bytes);
});

it("a bucket that an older release made, in which rollups were allowed, allows none from the next start on", async () => {
  const allows = async () => (await broker.bus.jsm.streams.info(STREAM)).config.allow_rollup_hdrs;
  await broker.bus.jsm.streams.update(STREAM, { allow_rollup_hdrs: true });
  expect(await allows()).toBe(true);
  await ensureStreams(broker.bus.jsm);
  expect(await allows()).toBe(false);
  expect(await seenBy("r5", ref)).toEqual(bytes);
});
