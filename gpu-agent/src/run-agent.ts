import { setTimeout as sleep } from "node:timers/promises";
import { PlaintextError } from "@vibeserve/shared";
import { pino } from "pino";
import { VERSION, probeAgent } from "./agent.ts";
import { ContentCache } from "./artifact/content-cache.ts";
import { ObjectArtifacts } from "./artifact/object-artifacts.ts";
import { connectBus } from "./bus/connect-bus.ts";
import { RefusedError } from "./bus/join.ts";
import { askStanding, findMembership } from "./bus/membership.ts";
import { ConfigError, readConfig, type Invocation } from "./config.ts";
import { openDataFolder } from "./data-folder.ts";
import { lockDataFolder } from "./data-lock.ts";
import type { Readiness } from "./probes.ts";
import { offeredIn } from "./probe/device.ts";
import { once } from "./process/once.ts";
import { optimize } from "./process/optimize.ts";
import { shed } from "./process/shed.ts";
import { killLeftovers } from "./process/sweep.ts";
import { openScratchFolder } from "./scratch-folder.ts";
import { Spool } from "./spool/spool.ts";
import { onDemand } from "./worker/on-demand.ts";
import type { Workbench } from "./worker/workbench.ts";
import { Worker } from "./worker/worker.ts";

/** After SIGTERM and its bound: stopping processes (7 s) and saying goodbye (4 s) must be over by then. */
export const LAST_RESORT_MS = 25_000;
/** Jobs of one campaign come one after the other. */
const SHED_AFTER_MS = 10_000;

/** The daemon: probes, dials, takes jobs, and leaves on SIGTERM. Reads the command line; sets the exit code. */
export async function runAgent(argv: readonly string[]): Promise<void> {
  try {
    await run(readConfig(argv));
  } catch (error) {
    const stream = error instanceof ConfigError && error.exitCode === 0 ? process.stdout : process.stderr;
    stream.write(
      `${error instanceof ConfigError ? error.message : `gpu-agent: ${error instanceof Error ? error.message : String(error)}`}\n`,
    );
    process.exitCode =
      error instanceof ConfigError || error instanceof RefusedError ? error.exitCode : error instanceof PlaintextError ? 2 : 1;
  }
}

async function run({ config, describe }: Invocation): Promise<void> {
  const log = pino(
    { name: "gpu-agent", level: config.logLevel, base: { agentId: config.agentId } },
    pino.destination({ fd: 2, sync: true }),
  );
  const data = await openDataFolder(config.data);
  const readiness: Readiness = { data: data.root };
  if (!describe) {
    lockDataFolder(data.root);
    // Node's HTTP is 4 MB of an idle agent.
    if (config.http) log.info({ port: await (await import("./probes.ts")).answerProbes(config.http, readiness) }, "answering probes");
    const killed = killLeftovers(data.tag);
    if (killed > 0) log.warn({ killed }, "processes of an earlier life were killed");
    await openScratchFolder(data.tag);
  }
  const probed = await probeAgent(config, data);
  if (describe) {
    const { agentId, publicKey, pools, sandbox } = probed.info;
    process.stdout.write(
      `${JSON.stringify({ v: 1, kind: "agent.description", agentId, publicKey, pools, sandbox, device: probed.device, devices: probed.devices })}\n`,
    );
    return;
  }
  for (const why of probed.problems) log.warn({ why }, "an accelerator can't be used");
  if (probed.sandbox.kind === "none")
    log.warn(
      { why: probed.sandbox.reason },
      `NO SANDBOX: ${config.unsafeNoSandbox ? "code that a model wrote runs here all the same, as --unsafe-no-sandbox says" : "only code that ships with the product runs here"}`,
    );
  log.info(
    { version: VERSION, pools: probed.info.pools, isa: probed.device.isa, cores: probed.device.cores, sandbox: probed.sandbox.kind },
    "probed",
  );
  const { identity } = probed;
  const membership = await findMembership({ config, info: probed.info, identity, log });
  const { servers, ca, claim } = membership;
  const pools = membership.pools ?? probed.info.pools;
  const devices = offeredIn(probed.info.devices, pools);
  for (const { id, labels } of probed.info.devices.filter((d) => !devices.includes(d)))
    log.warn(
      { deviceId: id, pool: labels["vibeserve.dev/pool"], pools },
      "this agent was not let into the pool of this device: it is not offered",
    );
  const info = { ...probed.info, pools, devices };
  // Before there is a worker nothing has to be ended in order.
  let leave = (exitCode: number, _boundMs: number): void => process.exit(exitCode);
  const refused = (): void => {
    log.error({ servers }, "THE BROKER DOES NOT KNOW THIS AGENT'S KEY: it was revoked, or never enrolled; redialling slowly");
    askStanding(membership, { info, identity, log }).catch((error: unknown) => {
      log.fatal({ why: error instanceof Error ? error.message : String(error) }, "this agent has no business here any more; it ends");
      leave(error instanceof RefusedError ? error.exitCode : 1, 0);
    });
  };
  const unreachable = (why: string): void => log.warn({ why, servers }, "the broker can't be reached; redialling");
  const nc = await connectBus({ servers, ca, seed: identity.seed, claim, principal: config.agentId }, { unreachable, refused });
  readiness.connected = () => nc.flush();
  const bench: { opened: Workbench | null } = { opened: null };
  const worker: Worker = new Worker({
    nc,
    agentId: config.agentId,
    identity: probed.identity,
    devices: [probed.cpu, ...probed.devices.filter((d) => d.id !== probed.cpu.id)],
    tools: probed.tools,
    sandbox: probed.sandbox,
    info,
    artifacts: new ObjectArtifacts(nc, new ContentCache(data.artifacts, config.quotaGib * 2 ** 28)),
    spool: await Spool.open(data.spool),
    handlers: onDemand(async () => {
      optimize(true);
      const { openWorkbench } = await import("./worker/workbench.ts");
      bench.opened = await openWorkbench(config, data, probed, (deviceId) => worker.deviceGone(deviceId), log);
      return bench.opened.handlers;
    }),
    log,
  });
  leave = (exitCode, boundMs) => {
    setTimeout(() => process.exit(exitCode), boundMs + LAST_RESORT_MS).unref();
    // The evaluator's processes end with this one in any case; a second is for doing it in order.
    const left = worker.drain(boundMs).then(() => Promise.race([bench.opened?.close(), sleep(1_000, undefined, { ref: false })]));
    left.then(
      () => process.exit(exitCode),
      (error: unknown) => {
        log.error({ why: String(error) }, "draining failed");
        process.exit(1);
      },
    );
  };
  // A second signal means: now.
  let signals = 0;
  for (const name of ["SIGTERM", "SIGINT"] as const) process.on(name, () => leave(0, signals++ === 0 ? config.drainMs : 0));
  void worker.stuck.then(() => leave(70, 0));
  const registered = worker.start();
  // When no one measures on this machine, whoever that is. Where it fails nothing is lost but memory.
  const shedding = new Map<string, Promise<void>>();
  const shedAlone = () => probed.alone.idle(async () => shed(), new AbortController().signal);
  worker.whenIdle(SHED_AFTER_MS, () => void once(shedding, "shed", shedAlone).catch(() => undefined));
  const { exitWhenIdle } = config;
  const end = (): void => {
    log.info({ seconds: exitWhenIdle }, "no job for so long; it ends");
    leave(0, config.drainMs);
  };
  if (exitWhenIdle !== null) void registered.then(() => worker.whenIdle(exitWhenIdle * 1000, end));
  readiness.registered = () => worker.unregistered;
  log.info({ servers: nc.getServer() }, "taking jobs");
}
