// The other end of the raw copy: `copy-child.ts URL NATS-FOLDER SUBJECT CHUNKS FILE…`, a connection of its own for each file.
import { openSync, fsyncSync, writeSync } from "node:fs";
import { childBus } from "../child-bus.ts";

const [url = "", nats = "", subject = "", chunks = "", ...files] = process.argv.slice(2);
const done = await Promise.all(
  files.map(async (path) => {
    const nc = await childBus(url, nats);
    const file = openSync(path, "wx", 0o600);
    const whole = Promise.withResolvers<number>();
    let left = Number(chunks);
    nc.subscribe(subject, {
      callback: (_error, message) => {
        writeSync(file, message.data);
        nc.publish(`${subject}.ack`);
        if (--left > 0) return;
        fsyncSync(file);
        whole.resolve(nc.stats().inBytes);
      },
    });
    await nc.flush();
    return whole;
  }),
);
process.send?.("ready");
const from = performance.now();
const received = await Promise.all(done.map((d) => d.promise));
process.send?.({ bytes: received.reduce((a, b) => a + b, 0), seconds: (performance.now() - from) / 1000 });
