import { spawn } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { createUser } from "@nats-io/nkeys";
import { AgentInfo, Beat, BUCKETS, decode, encode, STREAMS, subjects } from "@vibeserve/shared";
import { launch } from "../../broker/launch.ts";
import { loadPrincipals, saveAgents } from "../../broker/principals.ts";
import { serverConfig } from "../../broker/server-config.ts";
import { connectBus } from "../../bus/connect.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { childEnvironment } from "../../config.ts";
import { eventAfter, type Logged } from "../../log/chain.ts";
import { delay } from "../../process/backoff.ts";
import { stopProcess } from "../../process/stop.ts";
import { row, type Row } from "../bench-report.ts";
import { within } from "../lane.ts";
import { rssMb } from "../rss.ts";
import type { FleetSite } from "./fleet.ts";
import { bytesOf, history } from "./history.ts";

const [POOL, AGENT] = ["bench", "bench"];
const MAIN = join(import.meta.dirname, "../../main.ts");
/** Messages on their way to the broker at once. */
const WINDOW = 500;

/**
 * A coordinator with a long past is started as a process: from then until its first assignment, stored, reaches the agent. One campaign in five is not ended and
 * has a job that waits. Its broker starts too; the disk is warm, since the logs were just written.
 */
export async function restart({ settings, dir, campaigns, experiments, signal, log }: FleetSite): Promise<Row[]> {
  const data = join(dir, "restart");
  const keys = join(data, "nats", "keys");
  const key = createUser();
  loadPrincipals(keys);
  saveAgents(keys, [{ agentId: AGENT, publicKey: key.getPublicKey(), pools: [POOL] }]);
  const each = Math.ceil(experiments / campaigns);
  const from = performance.now();
  const { events, bytes, floorMs } = await write(data, settings.natsServer, campaigns, each, signal);
  const wroteS = (performance.now() - from) / 1_000;
  log.write(
    `restart: ${campaigns} campaigns, ${campaigns * each} experiments, ${events} events, ${(bytes / 1e6).toFixed(0)} MB written in ${wroteS.toFixed(1)} s\n`,
  );

  const started = performance.now();
  const child = spawn(process.execPath, [MAIN, "up", "--data", data], {
    env: { ...childEnvironment({}), VIBESERVE_ROOT: settings.root, VIBESERVE_CACHE: settings.cache },
    stdio: ["ignore", "ignore", "inherit"],
  });
  try {
    const url = await within(address(join(data, "nats", "broker.json"), signal), "the broker listens", signal);
    const seed = new TextDecoder().decode(key.getSeed());
    await using nc = disposable(await connectBus({ servers: [url], seed, principal: AGENT }));
    const first = Promise.withResolvers<number>();
    nc.it.subscribe(subjects.assigned(AGENT, "*"), { callback: () => first.resolve(performance.now()) });
    const ready = decode(AgentInfo, bytesOf("AgentInfo/ready.json"), "agent");
    const info: AgentInfo = {
      ...ready,
      devices: ready.devices.map((device) => ({ ...device, id: `${AGENT}-cpu` })),
      ...{ agentId: AGENT, publicKey: key.getPublicKey(), pools: [POOL], startedAt: Date.now() },
    };
    const beat = () =>
      nc.it.publish(subjects.beat(AGENT), encode(Beat, { v: 1, kind: "beat", agentId: AGENT, startedAt: info.startedAt }, "beat"));
    nc.it.subscribe(subjects.roll, { callback: beat });
    const entry = `$KV.${BUCKETS.agents}.${AGENT}.info`;
    await within(
      register(() => jetstream(nc.it).publish(entry, encode(AgentInfo, info, entry), { timeout: 1_000 }), signal),
      "the agent registers",
      signal,
    );
    const at = await within(first.promise, "the first assignment", signal);
    const replayedMs = await within(replayed(join(data, "logs", "coordinator.log"), signal), "all logs are read", signal);
    const memoryMb = rssMb(child.pid ?? 0);
    const what = `coordinator restart with ${campaigns * each} experiments`;
    return [
      row(`${what}: first dispatch`, (at - started) / 1_000, "s", "<= 5"),
      row(`${what}: every log read, from when the first is`, replayedMs / 1_000, "s", ""),
      row(`floor: raw read of as many messages (${events}) from the stream`, floorMs / 1_000, "s", ""),
      row(`${what}: resident memory of the coordinator`, memoryMb, "MB", ""),
    ];
  } finally {
    const gone = child.exitCode === null ? once(child, "exit") : null;
    child.kill("SIGTERM");
    await gone;
    rmSync(data, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** The logs, byte for byte as the coordinator writes them, through a broker that does not sync each message; then reads them once. */
async function write(data: string, binary: string, campaigns: number, each: number, signal: AbortSignal) {
  const nats = join(data, "nats");
  const principals = loadPrincipals(join(nats, "keys"));
  const files = {
    binary,
    configFile: join(nats, "write.conf"),
    portsDir: join(nats, "ports"),
    errorFile: join(nats, "write.err"),
    agents: 0,
  };
  const config = JSON.parse(
    serverConfig({
      principals,
      storeDir: join(nats, "jetstream"),
      portsDir: files.portsDir,
      logFile: join(nats, "write.log"),
      host: "127.0.0.1",
      port: -1,
      tlsFile: null,
    }),
  ) as { jetstream: Record<string, unknown> };
  delete config.jetstream["sync_interval"];
  writeFileSync(files.configFile, JSON.stringify(config));
  const { identity, port } = await launch(files, () => undefined);
  try {
    await using nc = disposable(
      await connectBus({ servers: [`nats://127.0.0.1:${port}`], seed: principals.seeds.coordinator, principal: "coordinator" }),
    );
    const [js, jsm] = [jetstream(nc.it), await jetstreamManager(nc.it)];
    await ensureStreams(jsm);
    let [events, bytes] = [0, 0];
    let under: Promise<unknown>[] = [];
    for (let c = 0; c < campaigns; c++) {
      const id = `bench-${String(c).padStart(4, "0")}`;
      let tail: Logged | null = null;
      for (const fact of history(id, each, c % 5 === 0 ? "open" : "ended", POOL)) {
        signal.throwIfAborted();
        const next = eventAfter(id, tail, fact, Date.now());
        tail = { ...next, streamSeq: ++events };
        bytes += next.bytes.length;
        under.push(js.publish(subjects.event(id), next.bytes, { timeout: 30_000 }));
        if (under.length < WINDOW) continue;
        await Promise.all(under);
        under = [];
      }
    }
    await Promise.all(under);
    const from = performance.now();
    for (let seq = 1; seq <= events;) {
      const batch = await jsm.direct.getBatch(STREAMS.events, { seq, batch: 1_000 });
      for await (const message of batch) {
        seq = message.seq + 1;
        if (message.pending === 0) break;
        if (seq % 1_000 === 1) break;
      }
    }
    return { events, bytes, floorMs: performance.now() - from };
  } finally {
    await stopProcess(identity, 20_000);
  }
}

/** Where the broker listens, once it does. */
async function address(file: string, signal: AbortSignal): Promise<string> {
  while (!signal.aborted) {
    try {
      const { port } = JSON.parse(readFileSync(file, "utf8")) as { port: number };
      if (port > 0) return `nats://127.0.0.1:${port}`;
    } catch {
      // Not there yet.
    }
    await delay(10, signal);
  }
  throw new Error("stopped");
}

async function register(publish: () => Promise<unknown>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await publish();
      return;
    } catch {
      // The bucket is not made yet.
    }
    await delay(10, signal);
  }
}

/** From the first log's reading to the last one's, as the coordinator says when it is done. */
async function replayed(file: string, signal: AbortSignal): Promise<number> {
  while (!signal.aborted) {
    const said = /"ms":(\d+)[^\n]*campaigns\.replayed|campaigns\.replayed[^\n]*"ms":(\d+)/.exec(readFileSync(file, "utf8"));
    if (said) return Number(said[1] ?? said[2]);
    await delay(50, signal);
  }
  throw new Error("stopped");
}

const disposable = <T extends { close(): Promise<void> }>(it: T) => ({ it, [Symbol.asyncDispose]: () => it.close() });
