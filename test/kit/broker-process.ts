// A supervisor in a process of its own, to be killed: prints "ready" once its broker listens, then waits.
import { startBroker } from "./real-broker.ts";

const dir = process.argv[2];
if (dir === undefined) throw new Error("usage: broker-process.ts DIR");
await startBroker(dir);
process.stdout.write("ready\n");
