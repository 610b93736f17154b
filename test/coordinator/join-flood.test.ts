import { subjects } from "@vibeserve/shared";
import { Packr } from "msgpackr";
import { expect, test } from "vitest";
import { Door } from "../../coordinator/src/enrolment/door.ts";
import { askToJoin, dialJoiner, joinLine, lineOf, newcomer } from "../kit/joiner.ts";
import { startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";

/** A join line is known to whoever ever had one. */
async function line(real: RealCoordinator): Promise<string> {
  await using client = await real.client();
  return (await joinLine(client)).line;
}

test("while holders of old lines flood the door, a node with a good token comes in, one without hears how it stands, and verbs are answered", async () => {
  using dir = tempDir("join-flood");
  await using real = await startCoordinator(dir.path);
  const old = await line(real);
  const flooders = await Promise.all(Array.from({ length: 20 }, async () => dialJoiner(lineOf(old))));
  const junk = Buffer.alloc(2_000, 0xc1);
  let sent = 0;
  let answered = 0;
  const flooding = new AbortController();
  const flood = Promise.all(
    flooders.map(async (nc) => {
      nc.subscribe("_INBOX_joiner.flood", { max: 1 });
      while (!flooding.signal.aborted) {
        for (let i = 0; i < 50; i++, sent++) nc.publish(subjects.join, junk, { reply: `_INBOX_joiner.flood.${sent}` });
        await nc.flush();
      }
    }),
  );
  // One of them hears all answers.
  flooders[0]?.subscribe("_INBOX_joiner.flood.>", {
    callback: () => {
      answered++;
    },
  });
  await expect.poll(() => sent, { timeout: 20_000 }).toBeGreaterThan(20_000);
  await using client = await real.client();
  expect((await client.campaigns()).campaigns).toEqual([]);
  const good = await line(real);
  const nc = await dialJoiner(lineOf(good));
  const who = newcomer("node-1");
  expect((await askToJoin(nc, who, { kind: "token", token: lineOf(good).token ?? "" })).kind).toBe("join.waiting");
  expect((await client.campaigns()).campaigns).toEqual([]);
  flooding.abort();
  await flood;
  // One connection is answered a few times at once and then once a second, whatever it sends.
  expect(answered).toBeGreaterThan(0);
  expect(answered).toBeLessThan(sent / 20);
  for (const each of [...flooders, nc]) await each.close();
}, 60_000);

const packr = new Packr({ useRecords: false });
const from = (id: number, proof: object = { kind: "none" }) => {
  const header = new Map([["Nats-Request-Info", JSON.stringify({ acc: "JOIN", server: "s", id })]]);
  return { headers: header as never, data: packr.pack({ v: 1, kind: "join", proof }) };
};
test("each connection has its bound, all without a token have one together, and each good token has its own", () => {
  let now = 0;
  const door = new Door(() => now);
  const none = () => false;
  const all = (count: number, ask: (i: number) => boolean) => Array.from({ length: count }, (_, i) => ask(i)).filter(Boolean).length;
  expect(all(100, () => door.admits(from(1), none))).toBe(4);
  now += 10_000;
  expect(all(400, (i) => door.admits(from(1000 + i), none))).toBe(256);
  // Nothing is left for those without a token; those with one don't notice.
  const token = (i: number) => ({ kind: "token", token: `secret-${i}` });
  expect(all(200, (i) => door.admits(from(2000 + i, token(i)), () => true))).toBe(200);
  expect(all(50, (i) => door.admits(from(3000 + i, token(0)), () => true))).toBe(3);
  expect(all(50, (i) => door.admits(from(4000 + i, token(900 + i)), none))).toBe(0);
  now += 1_000;
  expect(all(400, (i) => door.admits(from(5000 + i), none))).toBe(50);
});
