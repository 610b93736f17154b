// The other end of the floor: pulls, and says so at once. `floor-child.ts URL NATS-FOLDER STREAM DURABLE ANSWER-SUBJECT`
import { jetstream } from "@nats-io/jetstream";
import { childBus } from "./child-bus.ts";

const [url = "", nats = "", stream = "", durable = "", answer = ""] = process.argv.slice(2);
const nc = await childBus(url, nats);
const consumer = await jetstream(nc).consumers.get(stream, durable);
for await (const message of await consumer.consume()) {
  nc.publish(answer);
  message.ack();
}
