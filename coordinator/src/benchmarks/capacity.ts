import { randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { BUCKETS, STREAMS } from "@vibeserve/shared";
import { z } from "zod";
import { ApiClient } from "../api/client.ts";
import { connectBus } from "../bus/connect.ts";
import { filesUnder } from "../bundle/files-under.ts";
import { childEnvironment, type Settings } from "../config.ts";
import { openDataBus } from "../operate/data-bus.ts";
import { ownCredential, runningContext } from "../operate/own-credential.ts";
import { smokeTarget, startSmokeAgent } from "../operate/smoke-agent.ts";
import { delay } from "../process/backoff.ts";
import { SupervisedChild } from "../process/child.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
import { enrolBeforehand, newMember } from "../simulate/crowd.ts";
import { row, type BenchReport, type Row } from "./bench-report.ts";
import { within } from "./lane.ts";
import { rssMb } from "./rss.ts";

export interface Capacity {
  settings: Settings;
  /** Simulated, each with a connection, a key and an account of its own. */
  agents: number;
  /** Each of two experiments and a crowning. */
  campaigns: number;
  /** How long agents that do nothing are watched, s. */
  idleS: number;
  signal: AbortSignal;
  log: NodeJS.WritableStream;
}

export const CAPACITY = { agents: 200, campaigns: 20, idleS: 15 };

const Varz = z.object({ data: z.object({ in_msgs: z.number(), out_msgs: z.number(), in_bytes: z.number(), out_bytes: z.number() }) });

/** What agents and campaigns cost a coordinator and its broker, each a process: memory, disk, messages. Simulated devices; trees, git, logs and signatures are real. */
export async function benchCapacity(options: Capacity): Promise<BenchReport> {
  using dir = temporaryFolder("capacity");
  const empty = await measure(join(dir.path, "empty"), { ...options, agents: 0, campaigns: 0 });
  const full = await measure(join(dir.path, "full"), options);
  return { bench: "capacity", rows: rowsOf(empty, full, options), notMeasured: [] };
}

interface Seen {
  coordinatorMb: number;
  brokerMb: number;
  messages: number;
  messageBytes: number;
  /** Bytes on disk by part. */
  disk: Record<"events" | "results" | "leases" | "artifacts" | "git", number>;
}
interface Measured {
  idle: Seen;
  idleLater: Seen;
  busy: Seen;
  experiments: number;
  events: number;
}

async function measure(data: string, { settings, agents, campaigns, idleS, signal, log }: Capacity): Promise<Measured> {
  const members = Array.from({ length: agents }, () => {
    const id = `capacity-${randomBytes(5).toString("hex")}`;
    return newMember(id, id, []);
  });
  enrolBeforehand(data, members);
  await using own = new AsyncDisposableStack();
  const child = new SupervisedChild({
    ...{ name: "coordinator", command: process.execPath, args: [join(import.meta.dirname, "../main.ts"), "up", "--data", data] },
    ...{ env: childEnvironment({ VIBESERVE_NATS_SERVER: settings.natsServer, VIBESERVE_ROOT: settings.root }), pidFile: null },
    ...{ logFile: join(data, "up.out"), log: () => undefined },
  });
  own.defer(() => child.stop(15_000));
  child.start();
  const context = await within(running(data, signal), "the coordinator runs", signal);
  const client = own.use(await ApiClient.connect(context));
  const { bus } = own.use(await openDataBus({ ...settings, data }, "capacity"));
  const system = await connectBus(await ownCredential({ ...settings, data }, context, "system"));
  own.defer(() => system.close());
  const look = async (): Promise<Seen> => {
    const pid = z.object({ pid: z.int() }).parse(JSON.parse(readFileSync(join(data, "nats/broker.json"), "utf8"))).pid;
    const asked = await system.request(`$SYS.REQ.SERVER.${system.info?.server_id ?? ""}.VARZ`, "{}", { timeout: 5_000 });
    const { in_msgs, out_msgs, in_bytes, out_bytes } = Varz.parse(asked.json()).data;
    const bytes = async (stream: string) => (await bus.jsm.streams.info(stream)).state.bytes;
    const disk = {
      events: await bytes(STREAMS.events),
      ...{ results: await bytes(STREAMS.results), leases: await bytes(`KV_${BUCKETS.leases}`) },
      ...{ artifacts: await bytes(`OBJ_${BUCKETS.artifacts}`), git: await folderBytes(join(data, "git")) },
    };
    return {
      coordinatorMb: rssMb(child.pid ?? 0),
      brokerMb: rssMb(pid),
      messages: in_msgs + out_msgs,
      messageBytes: in_bytes + out_bytes,
      disk,
    };
  };
  log.write(`capacity: ${agents} agents connect\n`);
  const [server = ""] = context.servers;
  for (const { agentId, seed } of members) own.use(await startSmokeAgent({ url: server, ca: context.ca, agentId, seed }, () => undefined));
  await delay(3_000, signal);
  const idle = await look();
  await delay(idleS * 1_000, signal);
  const idleLater = await look();
  log.write(`capacity: ${campaigns} campaigns run\n`);
  let [experiments, events] = [0, 0];
  await within(
    Promise.all(
      members.slice(0, campaigns).map(async ({ agentId }) => {
        const options = { baselines: [], repeat: null };
        const { campaign } = await client.submit({ target: smokeTarget(agentId, "stacks/cpu"), options });
        for await (const event of client.watch(campaign, signal, () => undefined)) {
          if (event === "caught-up") continue;
          events++;
          if (event.fact.type === "experiment.settled") experiments++;
          if (event.fact.type === "campaign.ended") break;
        }
      }),
    ),
    "the campaigns end",
    signal,
  );
  return { idle, idleLater, busy: await look(), experiments, events };
}

function rowsOf(empty: Measured, full: Measured, { agents, campaigns, idleS }: Capacity): Row[] {
  const { idle, idleLater, busy, experiments, events } = full;
  const each = (a: number, b: number, n: number) => (b - a) / n;
  const grown = (part: keyof Seen["disk"], n: number) => each(idleLater.disk[part], busy.disk[part], n) / 1e3;
  const disk = (n: number) => (Object.keys(busy.disk) as (keyof Seen["disk"])[]).reduce((sum, part) => sum + grown(part, n), 0);
  return [
    row("nobody: memory of the coordinator", empty.idleLater.coordinatorMb, "MB", ""),
    row("nobody: memory of the broker", empty.idleLater.brokerMb, "MB", ""),
    row(
      `an agent of ${agents}: memory of the coordinator`,
      1e3 * each(empty.idleLater.coordinatorMb, idleLater.coordinatorMb, agents),
      "kB",
      "",
    ),
    row(`an agent of ${agents}: memory of the broker`, 1e3 * each(empty.idleLater.brokerMb, idleLater.brokerMb, agents), "kB", ""),
    row(
      "an agent that waits: messages through the broker, in and out",
      (60 * each(idle.messages, idleLater.messages, agents)) / idleS,
      "a minute",
      "",
    ),
    row(
      `a campaign of ${experiments / campaigns} experiments: messages through the broker, in and out`,
      each(idleLater.messages, busy.messages, campaigns),
      "",
      "",
    ),
    row("a campaign: bytes through the broker, in and out", each(idleLater.messageBytes, busy.messageBytes, campaigns) / 1e3, "kB", ""),
    row("a campaign: memory of the coordinator", 1e3 * each(idleLater.coordinatorMb, busy.coordinatorMb, campaigns), "kB", ""),
    row("1,000 experiments: events", (1_000 * events) / experiments, "", ""),
    row("1,000 experiments: disk for events", grown("events", experiments), "MB", ""),
    row("1,000 experiments: disk for candidates' trees (artifacts)", grown("artifacts", experiments), "MB", ""),
    row("1,000 experiments: disk for git", grown("git", experiments), "MB", ""),
    row("1,000 experiments: disk in all", disk(experiments), "MB", ""),
  ];
}

async function folderBytes(folder: string): Promise<number> {
  const files = await filesUnder(folder).catch(() => []);
  return files.reduce((sum, path) => sum + statSync(join(folder, path)).size, 0);
}

async function running(data: string, signal: AbortSignal) {
  for (;;) {
    const context = runningContext(data);
    if (context) return context;
    signal.throwIfAborted();
    await delay(50, signal);
  }
}
