// Beats of many agents, each every 5 s, spread evenly. `beats-child.ts URL NATS-FOLDER AGENTS`
import { Beat, encode, subjects } from "@vibeserve/shared";
import { childBus } from "../child-bus.ts";

const [url = "", nats = "", count = "0"] = process.argv.slice(2);
const nc = await childBus(url, nats);
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
