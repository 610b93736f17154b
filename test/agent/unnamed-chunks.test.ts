import { randomBytes } from "node:crypto";
import { jetstream } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { BUCKETS, chunkSubject } from "@vibeserve/shared";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
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
const sweep = async (laterMs: number): Promise<void> => {
  const log = (event: string, facts: Record<string, unknown>) => {
    if (event === "artifacts.swept") swept.push(facts);
  };
  await using chunks = new UnnamedChunks({ ...broker.bus, log, now: () => Date.now() + laterMs, most: MOST });
  await chunks.sweep();
};
const send = async (agent: keyof typeof agents, chunks: number): Promise<void> => {
  const transfer = randomBytes(11).toString("hex");
  for (let i = 0; i < chunks; i++) await jetstream(agents[agent]).publish(chunkSubject(transfer), randomBytes(1024));
};
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
  await sweep(0);
  expect(await there()).toEqual({ a1: 4, a2: 2, coordinator: 1 });
  await sweep(HOUR_MS + 60_000);
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
  await sweep(0);
  expect(await there()).toEqual({ a1: 1, a2: 2, coordinator: 1 });
  expect(swept.splice(0)).toEqual([{ agentId: "a1", transfers: 3, chunks: 9, tooMany: true }]);
});

it("it looks by itself, also where the store has hardly grown", async () => {
  await send("a1", MOST + 1);
  await using _ = new UnnamedChunks({ ...broker.bus, log: () => undefined, now: () => Date.now(), most: MOST, lookMs: 20 });
  await vi.waitFor(async () => expect(await there()).toEqual({ a1: 1, a2: 2, coordinator: 1 }), { timeout: 20_000, interval: 50 });
});
