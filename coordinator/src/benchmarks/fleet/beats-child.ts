// Beats of many agents, each every 5 s, spread evenly. `beats-child.ts URL NATS-FOLDER AGENTS`
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Beat, encode, subjects } from "@vibeserve/shared";
import { connectBus } from "../../bus/connect.ts";
import { signalProcess, type ProcessIdentity } from "../../process/identity.ts";

const [url = "", nats = "", count = "0"] = process.argv.slice(2);
// The bench was killed outright: nobody else would end its broker.
process.once("disconnect", () => {
  signalProcess(JSON.parse(readFileSync(join(nats, "broker.json"), "utf8")) as ProcessIdentity, "SIGTERM");
  process.exit(0);
});
const seed = readFileSync(join(nats, "keys", "coordinator.nk"), "utf8").trim();
const nc = await connectBus({ servers: [url], seed, principal: "coordinator" });
const beats = Array.from({ length: Number(count) }, (_, i) => {
  const agentId = `bench-${i}`;
  return { subject: subjects.beat(agentId), bytes: encode(Beat, { v: 1, kind: "beat", agentId, startedAt: 1 }, "beat") };
});
const from = performance.now();
let sent = 0;
setInterval(() => {
  for (const due = ((performance.now() - from) / 5_000) * beats.length; sent < due; sent++) {
    const beat = beats[sent % beats.length];
    if (beat) nc.publish(beat.subject, beat.bytes);
  }
}, 10);
