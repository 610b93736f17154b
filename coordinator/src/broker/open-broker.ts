import { join } from "node:path";
import type { Settings } from "../config.ts";
import type { EventLogger } from "../process/log-file.ts";
import type { BrokerAccess } from "./access.ts";
import { Broker } from "./broker.ts";
import { brokerTls } from "./tls.ts";

/** The cluster that the settings name, else a server of our own. signal: ends the wait for a cluster's servers. Throws BrokerStartError, BrokerSettingsError or ConfigError. */
export async function openBroker(settings: Settings, log: EventLogger, signal?: AbortSignal): Promise<BrokerAccess> {
  const { data, host, port, advertise, nats } = settings;
  const dir = join(data, "nats");
  if (nats) return (await import("./cluster/cluster.ts")).Cluster.start({ ...nats, dir: join(dir, "keys"), advertise, log, signal });
  return Broker.start({
    binary: settings.natsServer,
    dir,
    logFile: join(data, "logs", "nats.log"),
    ...{ host, port, advertise, log },
    tls: await brokerTls(join(dir, "tls"), { host, advertised: advertise?.replace(/:\d+$/, "") ?? null, given: settings.tls }),
  });
}
