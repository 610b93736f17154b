import { randomBytes } from "node:crypto";
import { jetstream } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, chunkSubject, nameSubject, objectName, sha256 } from "@vibeserve/shared";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { ArtifactIntake } from "../../coordinator/src/artifact/artifact-intake.ts";
import { ArtifactStore } from "../../coordinator/src/artifact/artifact-store.ts";
import { UnnamedChunks } from "../../coordinator/src/artifact/unnamed-chunks.ts";
import { ContentCache } from "../../gpu-agent/src/artifact/content-cache.ts";
import { ObjectArtifacts } from "../../gpu-agent/src/artifact/object-artifacts.ts";
import { startBroker, type RealBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";

/** An agent may store chunks under its own subject as it likes; here it never names them. */
const dir = tempDir("unnamed-chunks");
const HOUR_MS = 3_600_000;
let broker: RealBroker;
let agents: Record<"a1" | "a2", NatsConnection>;
const swept: Record<string, unknown>[] = [];

beforeAll(async () => {
  broker = await startBroker(dir.path);
  const connected = async (id: string) => broker.connectAgent(id, await broker.enroll(id));
  agents = { a1: await connected("a1"), a2: await connected("a2") };
});
afterAll(async () => {
  await broker[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

const MOST = 6;
const sweep = async (leastAgeMs: number, before: () => Promise<unknown> = () => Promise.resolve()): Promise<void> => {
  const log = (event: string, facts: Record<string, unknown>) => {
    if (event === "artifacts.swept") swept.push(facts);
  };
  const inTurn: ArtifactIntake["inTurn"] = async (_agentId, task) => {
    await before();
    return task();
  };
  await using chunks = new UnnamedChunks({ ...broker.bus, log, inTurn, leastAgeMs, most: MOST });
  await chunks.sweep();
};
async function send(agent: keyof typeof agents, chunks: number): Promise<{ transfer: string; bytes: Buffer }> {
  const transfer = randomBytes(11).toString("hex");
  const sent = Array.from({ length: chunks }, () => randomBytes(1024));
  for (const chunk of sent) await jetstream(agents[agent]).publish(chunkSubject(transfer), chunk);
  return { transfer, bytes: Buffer.concat(sent) };
}
/** Chunks that are there, by whose they are. */
async function there(): Promise<Record<string, number>> {
  const filter = chunkSubject(">");
  const { state } = await broker.bus.jsm.streams.info(`OBJ_${BUCKETS.artifacts}`, { subjects_filter: filter });
  const counts: Record<string, number> = {};
  for (const [subject, n] of Object.entries(state.subjects ?? {})) {
    const [agent = "", transfer] = subject.slice(filter.length - 1).split(".");
    const owner = transfer === undefined ? "coordinator" : agent;
    counts[owner] = (counts[owner] ?? 0) + n;
  }
  return counts;
}

it("chunks that were never named go after an hour; what was named stays, an agent's and the coordinator's own", async () => {
  const named = await new ObjectArtifacts(agents.a1, new ContentCache(`${dir.path}/a1`)).put(Buffer.from("named"));
  const store = await ArtifactStore.open(broker.bus.nc);
  const own = await store.put(Buffer.from("the coordinator's"));
  await send("a1", 3);
  await send("a2", 2);
  await sweep(HOUR_MS);
  expect(await there()).toEqual({ a1: 4, a2: 2, coordinator: 1 });
  await sweep(0);
  expect(await there()).toEqual({ a1: 1, coordinator: 1 });
  expect(swept.splice(0)).toEqual([
    { agentId: "a1", transfers: 1, chunks: 3, tooMany: false },
    { agentId: "a2", transfers: 1, chunks: 2, tooMany: false },
  ]);
  for (const ref of [named, own]) expect((await store.get(ref.digest)).length).toBe(ref.bytes);
});

it("an agent that has too many of them loses them at once, and no other agent any", async () => {
  await send("a2", 2);
  for (let i = 0; i < 3; i++) await send("a1", 3);
  await sweep(HOUR_MS);
  expect(await there()).toEqual({ a1: 1, a2: 2, coordinator: 1 });
  expect(swept.splice(0)).toEqual([{ agentId: "a1", transfers: 3, chunks: 9, tooMany: true }]);
});

it("what gets its name while its agent's chunks go stays, and so does what the store's own listing leaves out", async () => {
  const store = await ArtifactStore.open(broker.bus.nc);
  const { transfer, bytes } = await send("a1", 1);
  const ref = { digest: sha256(bytes), bytes: bytes.length };
  const name = objectName(ref, transfer, 1, new Date());
  await sweep(0, async () => jetstream(agents.a1).publish(nameSubject(ref.digest), name));
  expect(await store.get(ref.digest)).toEqual(bytes);
  const unlisted = JSON.stringify({ ...(JSON.parse(name) as object), nuid: `a1.${transfer}`, deleted: true });
  await broker.bus.js.publish(nameSubject(ref.digest), unlisted);
  await send("a1", 1);
  await sweep(0);
  expect(await there()).toEqual({ a1: 2, coordinator: 1 });
  await send("a2", 2);
});

it("an agent's names and its chunks' end wait for each other", async () => {
  const intake = new ArtifactIntake(broker.bus, () => undefined);
  const done: number[] = [];
  const gate = Promise.withResolvers<undefined>();
  const turns = [
    intake.inTurn("a3", async () => void done.push(await gate.promise.then(() => 1))),
    intake.inTurn("a3", async () => void done.push(2)),
  ];
  await intake.inTurn("a4", async () => void done.push(0));
  gate.resolve(undefined);
  await Promise.all(turns);
  await expect(intake.inTurn("a3", () => Promise.reject(new Error("as it says")))).rejects.toThrow("as it says");
  expect(done).toEqual([0, 1, 2]);
  await intake[Symbol.asyncDispose]();
});

it("it looks by itself, also where the store has hardly grown", async () => {
  await send("a1", MOST + 1);
  await using _ = new UnnamedChunks({
    ...broker.bus,
    log: () => undefined,
    inTurn: async (_agentId, task) => task(),
    most: MOST,
    lookMs: 20,
  });
  await vi.waitFor(async () => expect(await there()).toEqual({ a1: 2, a2: 2, coordinator: 1 }), { timeout: 20_000, interval: 50 });
});
