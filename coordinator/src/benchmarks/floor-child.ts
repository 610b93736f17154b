// The other end of the floor: pulls, and says so at once. `floor-child.ts URL NATS-FOLDER STREAM DURABLE ANSWER-SUBJECT`
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { jetstream } from "@nats-io/jetstream";
import { connectBus } from "../bus/connect.ts";
import { signalProcess, type ProcessIdentity } from "../process/identity.ts";

const [url = "", nats = "", stream = "", durable = "", answer = ""] = process.argv.slice(2);
// The bench was killed outright: nobody else would end its broker.
process.once("disconnect", () => {
  signalProcess(JSON.parse(readFileSync(join(nats, "broker.json"), "utf8")) as ProcessIdentity, "SIGTERM");
  process.exit(0);
});
const seed = readFileSync(join(nats, "keys", "coordinator.nk"), "utf8").trim();
const nc = await connectBus({ servers: [url], seed, principal: "coordinator" });
const consumer = await jetstream(nc).consumers.get(stream, durable);
for await (const message of await consumer.consume()) {
  nc.publish(answer);
  message.ack();
}
