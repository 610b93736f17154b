import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { NatsConnection } from "@nats-io/transport-node";
import { connectBus } from "../bus/connect.ts";
import { signalProcess, type ProcessIdentity } from "../process/identity.ts";

/** The coordinator's connection for a child of a bench, which ends with its parent. That was killed outright then: nobody else would end its broker. */
export async function childBus(url: string, nats: string): Promise<NatsConnection> {
  process.once("disconnect", () => {
    signalProcess(JSON.parse(readFileSync(join(nats, "broker.json"), "utf8")) as ProcessIdentity, "SIGTERM");
    process.exit(0);
  });
  const seed = readFileSync(join(nats, "keys", "coordinator.nk"), "utf8").trim();
  return connectBus({ servers: [url], seed, principal: "coordinator" });
}
