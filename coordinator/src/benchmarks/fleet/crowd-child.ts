// Simulated agents, each with a connection and key of its own: `crowd-child.ts URL FILE POOL`, FILE: JSON [{agentId, seed}]. Says "ready" to its parent, ends with it.
import { readFileSync } from "node:fs";
import type { Device } from "@vibeserve/shared";
import { SimulatedAgent } from "../../simulate/simulated-agent.ts";

const [url = "", file = "", pool = ""] = process.argv.slice(2);
process.once("disconnect", () => process.exit(0));

const device = (id: string): Device => ({
  ...{ id, kind: "cpu", name: "simulated", isa: "none", isaBits: [], cores: 1, cpus: "0", memBytes: 1, labels: {}, simulated: true },
});
const failed = (error: unknown): void => {
  process.stderr.write(`${String(error)}\n`);
};
const agents = JSON.parse(readFileSync(file, "utf8")) as { agentId: string; seed: string }[];
/** Dialling: each is a handshake with a signature on both sides. */
const AT_ONCE = 32;
for (let from = 0; from < agents.length; from += AT_ONCE)
  await Promise.all(
    agents.slice(from, from + AT_ONCE).map(({ agentId, seed }) =>
      SimulatedAgent.start({
        ...{ url, agentId, seed, pool, device: device(`${agentId}-d`), failed },
        work: () => Promise.resolve({ status: "built", buildDigest: "0".repeat(64), cached: true, seconds: 0, bytes: 1 }),
      }),
    ),
  );
process.send?.("ready");
