import { existsSync } from "node:fs";
import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { PlaintextError } from "@vibeserve/shared";
import { UnreachableError } from "../api/client.ts";
import { credentialOf } from "../broker/access.ts";
import { Broker } from "../broker/broker.ts";
import { connectBus, type Credential } from "../bus/connect.ts";
import { CliError, EXIT } from "../cli/exit.ts";
import { hold, upLock } from "../cli/up.ts";
import type { Settings } from "../config.ts";
import type { LogBus } from "../log/event-log.ts";
import { patiently, YOUNG_POD_MS } from "../process/backoff.ts";
import { messageOf } from "../process/message-of.ts";
import { leftContext, ownCredential, runningContext } from "./own-credential.ts";

/** The data folder's broker with the coordinator's own rights. */
export interface DataBus extends AsyncDisposable {
  bus: LogBus;
  /** A coordinator works in the folder meanwhile. */
  running: boolean;
}

/**
 * Beside the coordinator where one runs here, else on a broker of its own while the folder is held. On a cluster beside whatever coordinator there is: it may run in
 * another pod, whose processes can't be seen from here. Throws CliError, PlaintextError, or UnreachableError: of a cluster at once where it does not know our key,
 * else after 30 s.
 */
export async function openDataBus(settings: Settings, role: string): Promise<DataBus> {
  if (settings.nats) {
    const credential = await ownCredential(settings, settings.nats, "coordinator");
    return { ...(await connected(credential, YOUNG_POD_MS)), running: leftContext(settings.data) !== null };
  }
  const running = runningContext(settings.data);
  if (running) return { ...(await connected(await ownCredential(settings, running, "coordinator"))), running: true };
  await using own = new AsyncDisposableStack();
  const lock = hold(upLock(settings.data), role);
  own.defer(() => lock.release());
  const dir = join(settings.data, "nats");
  const logFile = join(settings.data, "logs", "nats.log");
  const broker = await Broker.start({ binary: settings.natsServer, dir, logFile, host: "127.0.0.1", port: -1, log: () => undefined });
  own.defer(() => broker.close());
  const { bus } = own.use(await connected(credentialOf(broker, "coordinator")));
  const open = own.move();
  return { bus, running: false, [Symbol.asyncDispose]: () => open.disposeAsync() };
}

/** Throws CliError where the folder was never a coordinator's. */
export function requireData(data: string): void {
  if (!existsSync(join(data, "nats")))
    throw new CliError(EXIT.badInput, `${data} is no data folder of a coordinator: nothing was started in it yet`);
}

/** patienceMs: how long it is tried where nobody answers, and then where storing is not answered for: a cluster that was just started chooses a leader in seconds. */
async function connected(credential: Credential, patienceMs = 0): Promise<Omit<DataBus, "running">> {
  await using own = new AsyncDisposableStack();
  try {
    const nc = own.adopt(await connectBus(credential, patienceMs), (open) => open.close());
    const jsm = await patiently(patienceMs, () => jetstreamManager(nc));
    const open = own.move();
    return { bus: { nc, js: jetstream(nc), jsm }, [Symbol.asyncDispose]: () => open.disposeAsync() };
  } catch (error) {
    if (error instanceof PlaintextError) throw error;
    throw new UnreachableError(`no broker at ${credential.servers.join(", ")}: ${messageOf(error)}`, { cause: error });
  }
}
