import { join } from "node:path";
import { AckPolicy, RetentionPolicy, StorageType } from "@nats-io/jetstream";
import { childEnvironment } from "../config.ts";
import { SupervisedChild } from "../process/child.ts";
import { within, type Lane, type LaneSite } from "./lane.ts";

const [STREAM, SUBJECT, DURABLE, ANSWER] = ["BENCH_FLOOR", "bench.floor", "floor", "bench.answer"];
/** About the size of a job. */
const PAYLOAD = new Uint8Array(300);

/**
 * The least that a job's way could take on this broker: one message with a msg-id into a work-queue stream on file, to a pull consumer in another process, and a
 * core message back from there. No lease, no schema, nothing of the product at the other end.
 */
export async function openFloor({ broker, nc, js, jsm, settings, log, signal, own }: LaneSite): Promise<Lane> {
  await jsm.streams.add({ name: STREAM, subjects: [SUBJECT], retention: RetentionPolicy.Workqueue, storage: StorageType.File });
  await jsm.consumers.add(STREAM, { durable_name: DURABLE, ack_policy: AckPolicy.Explicit });
  const nats = join(settings.data, "nats");
  const child = new SupervisedChild({
    ...{ name: "floor", command: process.execPath, env: childEnvironment({}), pidFile: null, log },
    args: [join(import.meta.dirname, "floor-child.ts"), broker.url, nats, STREAM, DURABLE, ANSWER],
    logFile: join(settings.data, "logs", "floor.out"),
  });
  own.defer(() => child.stop(1_000));
  child.start();
  let answered: PromiseWithResolvers<number> | null = null;
  nc.subscribe(ANSWER, { callback: () => answered?.resolve(performance.now()) });
  let serial = 0;
  return async () => {
    answered = Promise.withResolvers<number>();
    const from = performance.now();
    const published = js.publish(SUBJECT, PAYLOAD, { msgID: `floor.${serial++}`, timeout: 5_000 });
    const [at] = await within(Promise.all([answered.promise, published]), "the floor answers", signal);
    return at - from;
  };
}
