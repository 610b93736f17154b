import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { launch, type Launched } from "../../coordinator/src/broker/launch.ts";
import { goneWithin } from "../../coordinator/src/process/stop.ts";
import { natsServer } from "./real-broker.ts";

export interface PlainNats extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
  /** SIGKILL; what it acknowledged stays on disk. */
  kill(): Promise<void>;
  /** Starts it again on the same port and folder. */
  restart(): Promise<void>;
}

/**
 * A real nats-server with JetStream in `dir`, without users or permissions, on a random loopback port: for what needs only a bus, such as a raw floor. Syncs
 * always, like the product's. For roles and permissions see real-broker.ts.
 */
export async function startNats(dir: string): Promise<PlainNats> {
  const start = async (port: number): Promise<Launched> => {
    mkdirSync(dir, { recursive: true });
    const config = {
      host: "127.0.0.1",
      port,
      ports_file_dir: join(dir, "ports"),
      jetstream: { store_dir: join(dir, "jetstream"), sync_interval: "always" },
    };
    writeFileSync(join(dir, "nats.conf"), JSON.stringify(config));
    const files = {
      binary: natsServer,
      configFile: join(dir, "nats.conf"),
      portsDir: join(dir, "ports"),
      errorFile: join(dir, "nats.err"),
      agents: 0,
    };
    return launch(files, () => undefined);
  };
  let running = await start(-1);
  const { port } = running;
  const kill = async (): Promise<void> => {
    running.child.kill("SIGKILL");
    await goneWithin(running.identity, 5_000);
  };
  return {
    url: `nats://127.0.0.1:${port}`,
    get pid() {
      return running.identity.pid;
    },
    kill,
    restart: async () => {
      await kill();
      running = await start(port);
    },
    [Symbol.asyncDispose]: kill,
  };
}
