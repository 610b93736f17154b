// `floor-child.ts MODEL-URL BROKER-URL NATS-FOLDER FROM REQUESTS`
import { readFileSync } from "node:fs";
import { join } from "node:path";
import Anthropic from "@anthropic-ai/sdk";
import { jetstream, jetstreamManager, StorageType } from "@nats-io/jetstream";
import { CLIENT } from "../../coordinator/src/agents/anthropic.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";

const [model = "", url = "", nats = "", from = "", requests = ""] = process.argv.slice(2);
const [STREAM, SUBJECT] = ["BENCH_TURN_FLOOR", "bench.turn-floor"];
/** About the size of turn.settled. */
const PAYLOAD = new Uint8Array(600);

const client = new Anthropic({ ...CLIENT, apiKey: "sk-bench", authToken: null, baseURL: model });
const seed = readFileSync(join(nats, "keys", "coordinator.nk"), "utf8").trim();
const nc = await connectBus({ servers: [url], seed, principal: "coordinator" });
await (await jetstreamManager(nc)).streams.add({ name: STREAM, subjects: [SUBJECT], storage: StorageType.File });
const js = jetstream(nc);
for (let i = Number(from); i < Number(from) + Number(requests); i++) {
  const body = { model: "m", max_tokens: 9, messages: [{ role: "user" as const, content: "?" }], stream: true as const };
  const events = await client.messages.create(body, { headers: { "x-vibeserve-turn": `floor:${i}` } });
  for await (const _ of events) continue;
  await js.publish(SUBJECT, PAYLOAD);
  await js.publish(SUBJECT, PAYLOAD);
}
await nc.close();
