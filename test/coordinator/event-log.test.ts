import { JetStreamApiError } from "@nats-io/jetstream";
import { expect, test } from "vitest";
import { CampaignEvent, decode, encode, sha256, type CampaignFact } from "@vibeserve/shared";
import { StoreGuard } from "../../coordinator/src/broker/store-guard.ts";
import { decodeNext, GENESIS, type Logged } from "../../coordinator/src/log/chain.ts";
import { CampaignLog, listCampaigns, readLog } from "../../coordinator/src/log/event-log.ts";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";

const note = (text: string): CampaignFact => ({ type: "note.recorded", topic: "test", text });
const forever = new AbortController().signal;

test("events are numbered, chained by hash and read back byte for byte", async () => {
  using dir = tempDir("log");
  await using real = await startBroker(dir.path);
  const { log } = await CampaignLog.open(real.bus, "c1", () => 1_700_000_000_000);
  const written = [await log.append(note("a"), forever), await log.append(note("b"), forever), await log.append(note("c"), forever)];
  const read = await readLog(real.bus, "c1");
  expect(read.map((e) => e.event)).toEqual(written.map((e) => e.event));
  expect(read.map((e) => e.event.seq)).toEqual([1, 2, 3]);
  expect(read[0]?.event.prev).toBe(GENESIS);
  expect(read[2]?.event.prev).toBe(sha256(read[1]?.bytes ?? ""));
  expect(await listCampaigns(real.bus)).toEqual(["c1"]);
});

test("an event is announced to live watchers once it is stored", async () => {
  using dir = tempDir("log");
  await using real = await startBroker(dir.path);
  const client = await real.connectClient();
  const heard = new Promise<CampaignEvent>((resolve) => {
    client.subscribe("vs.live.c1", { callback: (_error, m) => resolve(decode(CampaignEvent, m.data, m.subject)) });
  });
  await client.flush();
  const { log } = await CampaignLog.open(real.bus, "c1");
  await log.append(note("a"), forever);
  expect((await heard).fact).toEqual(note("a"));
});

test("the second writer of a campaign is refused by the log, not by luck", async () => {
  using dir = tempDir("log");
  await using real = await startBroker(dir.path);
  const { log: first } = await CampaignLog.open(real.bus, "c1");
  await first.append(note("a"), forever);
  const { log: second } = await CampaignLog.open(real.bus, "c1");
  await second.append(note("from the second"), forever);
  await expect(first.append(note("from the first"), forever)).rejects.toThrow(/another coordinator has appended to this log/);
  expect((await readLog(real.bus, "c1")).map((e) => e.event.fact)).toEqual([note("a"), note("from the second")]);
});

test.each([
  ["", null, false],
  [", also where a cluster first says that it is still on its way", 10_164, false],
  [", also where a cluster without a leader can't say what is stored", null, true],
])("an append whose acknowledgement was lost is found again instead of written twice%s", async (_, undecided, leaderless) => {
  using dir = tempDir("log");
  await using real = await startBroker(dir.path);
  let tries = 0;
  const js = Object.create(real.bus.js, {
    publish: {
      value: async (...args: Parameters<typeof real.bus.js.publish>) => {
        if (++tries === 2 && undecided !== null)
          throw new JetStreamApiError({ code: 400, err_code: undecided, description: "wrong last sequence" });
        const ack = await real.bus.js.publish(...args);
        if (tries === 1) throw new Error("connection lost after the broker had stored it");
        return ack;
      },
    },
  }) as typeof real.bus.js;
  let asked = 0;
  const streams = Object.create(real.bus.jsm.streams, {
    getMessage: {
      value: async (...args: Parameters<typeof real.bus.jsm.streams.getMessage>) => {
        if (++asked === 1 && leaderless)
          throw new JetStreamApiError({ code: 503, err_code: 10_008, description: "JetStream system temporarily unavailable" });
        return real.bus.jsm.streams.getMessage(...args);
      },
    },
  }) as typeof real.bus.jsm.streams;
  const jsm = Object.create(real.bus.jsm, { streams: { value: streams } }) as typeof real.bus.jsm;
  const store = new StoreGuard({ dir: dir.path, minFreeBytes: 1, restart: () => Promise.resolve(), log: () => undefined });
  const { log } = await CampaignLog.open({ ...real.bus, js, jsm, store }, "c1");
  await log.append(note("once"), forever);
  expect(asked).toBe(leaderless ? 2 : 1);
  // It is stored, so nothing is stalled, however long there is nothing more to store.
  expect(store.stalledMs).toBe(0);
  await log.append(note("twice"), forever);
  expect((await readLog(real.bus, "c1")).map((e) => e.event.fact)).toEqual([note("once"), note("twice")]);
});

test("an append during a broker restart waits for it and is stored once", async () => {
  using dir = tempDir("log");
  await using real = await startBroker(dir.path);
  const { log } = await CampaignLog.open(real.bus, "c1");
  await log.append(note("before"), forever);
  process.kill(real.broker.pid ?? 0, "SIGKILL");
  await log.append(note("during"), forever);
  expect((await readLog(real.bus, "c1")).map((e) => e.event.fact)).toEqual([note("before"), note("during")]);
});

test("history can't be deleted or purged, even by the coordinator's own credential", async () => {
  using dir = tempDir("log");
  await using real = await startBroker(dir.path);
  const { log } = await CampaignLog.open(real.bus, "c1");
  const { streamSeq } = await log.append(note("a"), forever);
  await expect(real.bus.jsm.streams.deleteMessage("VS_EVENTS", streamSeq)).rejects.toThrow();
  await expect(real.bus.jsm.streams.purge("VS_EVENTS")).rejects.toThrow();
});

test("an altered, reordered, dropped or foreign event breaks the chain", () => {
  const event = (seq: number, prev: string, text: string, campaign = "c1"): Logged => {
    const e: CampaignEvent = { v: 1, kind: "event", campaign, seq, at: 1, prev, fact: note(text) };
    return { event: e, bytes: encode(CampaignEvent, e, "vs.event.c1"), streamSeq: seq };
  };
  const first = event(1, GENESIS, "a");
  const second = event(2, sha256(first.bytes), "b");
  expect(decodeNext("c1", second.bytes, first)).toEqual(second.event);
  const altered = event(1, GENESIS, "A");
  expect(() => decodeNext("c1", second.bytes, altered)).toThrow(/campaign c1, event 2: prev is .* hashes to .*altered/);
  expect(() => decodeNext("c1", second.bytes, null)).toThrow(/event 1: has number 2/);
  expect(() => decodeNext("c1", event(2, sha256(first.bytes), "b", "c2").bytes, first)).toThrow(/belongs to campaign c2/);
});

test("events written with a broken chain are refused on replay", async () => {
  using dir = tempDir("log");
  await using real = await startBroker(dir.path);
  const { log } = await CampaignLog.open(real.bus, "c1");
  await log.append(note("a"), forever);
  const forged: CampaignEvent = { v: 1, kind: "event", campaign: "c1", seq: 2, at: 1, prev: "ab".repeat(32), fact: note("forged") };
  await real.bus.js.publish("vs.event.c1", encode(CampaignEvent, forged, "vs.event.c1"));
  await expect(CampaignLog.open(real.bus, "c1")).rejects.toThrow(/event 2: prev is abab/);
});
