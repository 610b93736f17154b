import { expect, test, vi } from "vitest";
import { jetstreamManager, RetentionPolicy } from "@nats-io/jetstream";
import { STREAMS } from "@vibeserve/shared";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { PURGED_TOGETHER } from "../../coordinator/src/fleet/result-intake.ts";
import { startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

const TOTAL = 2 * PURGED_TOGETHER;

const bus = async ({ coordinator: { broker } }: RealCoordinator) =>
  connectBus({ servers: [broker.url], seed: broker.seeds.coordinator, principal: "coordinator" });

test("acknowledged results are taken away many at once, and no acknowledgement is a write of its own (R5)", async () => {
  using dir = tempDir("result-intake");
  await using real = await startCoordinator(dir.path);
  const nc = await bus(real);
  const jsm = await jetstreamManager(nc);
  const agent = await real.agent("a1");
  const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
  await actor.ended;
  const job = actor.events.map((e) => e.event.fact).find((f) => f.type === "job.requested")?.job;
  const [lease] = agent.leases;
  if (!job || !lease) throw new Error("no job was given");
  const late = (n: number) =>
    agent.publish(agent.signed(job, lease, { status: "built", buildDigest: "0".repeat(64), cached: true, seconds: n, bytes: 1 }));
  for (let n = 0; n < TOTAL; n += 64) await Promise.all(Array.from({ length: 64 }, (_, i) => late(n + i)));
  const state = async () => (await jsm.streams.info(STREAMS.results)).state;
  await vi.waitFor(async () => expect((await state()).messages).toBeLessThan(TOTAL), 20_000);
  expect((await state()).last_seq).toBeGreaterThan(TOTAL);
  expect((await jsm.streams.info(STREAMS.results)).config.retention).toBe(RetentionPolicy.Limits);
  await nc.close();
}, 60_000);
