import { jetstream } from "@nats-io/jetstream";
import { subjects } from "@vibeserve/shared";
import { expect, test, vi } from "vitest";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import type { EffectContext } from "../../coordinator/src/campaign/effect-handlers.ts";
import { CampaignRegistry, type RegistryDeps } from "../../coordinator/src/campaign/registry.ts";
import { eventAfter, type Logged } from "../../coordinator/src/log/chain.ts";
import { history } from "../../coordinator/src/benchmarks/fleet/history.ts";
import { POOL, startBroker, type RealBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";

vi.setConfig({ testTimeout: 60_000 });

async function write(real: RealBroker, campaign: string, state: "ended" | "open"): Promise<void> {
  let tail: Logged | null = null;
  for (const fact of history(campaign, 1, state, POOL)) {
    const next = eventAfter(campaign, tail, fact, 1_000);
    tail = { ...next, streamSeq: (await real.bus.js.publish(subjects.event(campaign), next.bytes)).seq };
  }
}

/** Handlers that are over when the campaign stops: what it would start is not at stake. */
const untilStopped = (_effect: unknown, { signal }: EffectContext) =>
  new Promise<null>((resolve) => signal.addEventListener("abort", () => resolve(null), { once: true }));
const handlers = new Proxy({}, { get: () => untilStopped }) as RegistryDeps["handlers"];

test("logs of leases are read first, those that ended last; nobody is answered from a part; a broken log is listed", async () => {
  using dir = tempDir("restart");
  await using real = await startBroker(dir.path);
  for (const [id, state] of [
    ["a-ended", "ended"],
    ["b-open", "open"],
    ["c-open", "open"],
  ] as const)
    await write(real, id, state);
  const nc = await connectBus({ servers: [real.broker.url], seed: real.broker.seeds.coordinator, principal: "coordinator" });
  await jetstream(nc).publish(subjects.event("d-broken"), "no event");
  await nc.close();
  const order: string[] = [];
  const registry = await CampaignRegistry.open({
    ...{ bus: real.bus, handlers, jobOver: () => undefined, recorded: () => undefined, trouble: () => null, log: () => undefined },
    now: () => 1_000,
    replayed: (actor) => void order.push(actor.id),
  });
  const job = (campaign: string) => ({ campaign, id: `${campaign}_e2_build`, attempt: 1 });
  expect(() => registry.list()).toThrow("4 campaigns are not read yet");
  expect(registry.standing(job("c-open"))).toEqual({ kind: "unread" });
  expect(registry.standing(job("a-ended")).kind).toBe("over");
  const expired = registry.expire(job("b-open"), "its agent is gone");
  registry.start(new Set(["c-open"]));
  await registry.all;
  await expired;
  expect(order[0]).toBe("c-open");
  expect(order.at(-1)).toBe("a-ended");
  expect(
    registry
      .list()
      .map((a) => a.id)
      .sort(),
  ).toEqual(["a-ended", "b-open", "c-open"]);
  expect([...registry.broken.keys()]).toEqual(["d-broken"]);
  expect(registry.standing(job("c-open")).kind).toBe("open");
  expect(registry.standing(job("b-open"))).toMatchObject({ kind: "over" });
  await registry.close();
});
