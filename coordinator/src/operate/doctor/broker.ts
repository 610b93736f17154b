import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { BUCKETS, subjects } from "@vibeserve/shared";
import { ServersOfCluster } from "../../broker/cluster/system.ts";
import { commandLine } from "../../command-line.ts";
import { connectBus } from "../../bus/connect.ts";
import type { LogBus } from "../../log/event-log.ts";
import { inTime } from "../../process/within.ts";
import { leftContext, ownCredential } from "../own-credential.ts";
import { messageOf } from "../../process/message-of.ts";
import { check, fail, ok, readText, skipped, warn, type Check, type Finding, type Patient } from "./check.ts";

/** A skew below this is what NTP leaves on a bad day and what a slow answer looks like. */
const SKEW_MS = 2_000;
const ANSWER_MS = 10_000;
/** The broker's own limit is 1 MiB; an artifact's pieces have 128 KiB. */
const LARGE_BYTES = { coordinator: 900 * 1024, node: 200 * 1024 };

/** A check that needs the broker: without one it says that, once and not as its own failure. */
export const overBroker = (name: string, on: Check["on"], look: (bus: LogBus, at: Patient) => Promise<Finding>): Check =>
  check(name, on, async (at) => {
    const dialled = await at.dial();
    if (dialled.kind === "none") return skipped(dialled.why);
    return dialled.kind === "failed" ? skipped("the broker can't be reached: see broker-reachable") : look(dialled.bus, at);
  });

export const BROKER: readonly Check[] = [
  check("broker-reachable", "both", async (at) => {
    const dialled = await at.dial();
    if (dialled.kind === "none") return skipped(dialled.why);
    if (dialled.kind === "open")
      return ok(
        `${dialled.bus.nc.getServer()}, nats-server ${dialled.bus.nc.info?.version ?? "?"}, connected in ${Math.round(dialled.ms)} ms`,
      );
    const where = dialled.servers.join(", ");
    if (/authorization|authentication/i.test(dialled.why))
      return fail(
        `${where} does not know this key: ${dialled.why}`,
        at.node
          ? `${commandLine("agents")} on the coordinator says why; then join with a new line: ${commandLine("agents", ["token"])}`
          : commandLine("up"),
      );
    return fail(
      `${where}: ${dialled.why}`,
      at.node
        ? `nc -vz ${where.replace(/^\w+:\/\//, "").replace(/:(\d+).*$/, " $1")}; docs/operations.md#broker-unreachable`
        : commandLine("up", ["--data", at.data]),
    );
  }),
  overBroker("broker-sync", "coordinator", async (_bus, at) => {
    const servers = await everyServer(at);
    if (typeof servers === "string") return skipped(servers);
    const lax = servers.filter((server) => !server.syncAlways).map((server) => server.name);
    if (lax.length === 0) return ok(`sync_interval: always, on ${servers.map((server) => server.name).join(", ")}`);
    return fail(
      `${lax.join(", ")} acknowledges before it syncs: a power cut loses what was acknowledged`,
      "set jetstream { sync_interval: always } in nats.conf of every server and restart it",
    );
  }),
  overBroker("broker-store", "coordinator", async (_bus, at) => {
    const servers = await everyServer(at);
    if (typeof servers === "string") return skipped(servers);
    const [settings] = servers;
    if (settings === undefined) return fail("no server of it stores anything: JetStream is off", "jetstream { store_dir: … } in nats.conf");
    if (at.settings.nats || !existsSync(settings.storeDir)) return skipped(`${settings.storeDir} is on another machine`);
    const type = fileSystemOf(at, settings.storeDir);
    if (type === "tmpfs" || type === "ramfs")
      return fail(
        `${settings.storeDir} is in memory (${type}): a restart of the machine loses everything`,
        `${commandLine("up", ["--data", "DIR"])} on a disk`,
      );
    if (type !== null && /^(nfs|cifs|smb|9p|fuse\.sshfs)/.test(type))
      return warn(
        `${settings.storeDir} is on ${type}: syncs there may be slow, or promised and not done`,
        "a local disk or a block volume",
      );
    return ok(`${settings.storeDir}${type === null ? "" : ` on ${type}`}`);
  }),
  overBroker("clock-skew", "both", async (bus, at) => {
    const before = at.now();
    const { ts } = (await bus.jsm.streams.info(`KV_${BUCKETS.agents}`)) as { ts?: string };
    if (ts === undefined) return skipped("this broker does not tell the time");
    const offMs = (before + at.now()) / 2 - Date.parse(ts);
    const say = `this machine's clock is ${Math.abs(offMs) < 1_000 ? "within 1 s of" : `${(Math.abs(offMs) / 1000).toFixed(1)} s ${offMs > 0 ? "ahead of" : "behind"}`} the broker's`;
    // Leases and deadlines are timed by each side's own clock; certificates, tokens and reports are not.
    return Math.abs(offMs) < SKEW_MS ? ok(say) : warn(say, "timedatectl set-ntp true");
  }),
  overBroker("large-messages", "both", async ({ nc }, { node, agentId }) => {
    const bytes = node ? LARGE_BYTES.node : LARGE_BYTES.coordinator;
    const startedAt = performance.now();
    const data = randomBytes(bytes);
    const why = "small messages go through and large ones do not: an MTU on the way is smaller than the network says";
    const fix = "ip link set dev eth0 mtu 1400 (or enable MSS clamping on the tunnel): docs/operations.md#large-messages";
    try {
      if (node) {
        // An agent may publish under its own progress and hear nothing back: the broker's PONG comes after it has read all before it.
        nc.publish(subjects.progress(agentId, "doctor"), data);
        await inTime(nc.flush(), ANSWER_MS, () => new Error(`no answer in ${ANSWER_MS / 1000} s`));
      } else {
        const subject = `vs.doctor.${randomBytes(6).toString("hex")}`;
        const echo = nc.subscribe(subject, { callback: (_error, m) => void m.respond(m.data) });
        const answer = await nc.request(subject, data, { timeout: ANSWER_MS });
        echo.unsubscribe();
        if (Buffer.compare(answer.data, data) !== 0) return fail("a large message came back changed", fix);
      }
      return ok(`${Math.round(bytes / 1024)} KiB in ${Math.round(performance.now() - startedAt)} ms`);
    } catch (error) {
      return fail(`${Math.round(bytes / 1024)} KiB: ${messageOf(error)}: ${why}`, fix);
    }
  }),
  overBroker("broker-writes", "coordinator", async ({ js, jsm }, at) => {
    const key = `$KV.${BUCKETS.agents}.doctor.probe`;
    const startedAt = performance.now();
    try {
      await js.publish(key, new Uint8Array(), { timeout: ANSWER_MS });
      const ms = Math.round(performance.now() - startedAt);
      await jsm.streams.purge(`KV_${BUCKETS.agents}`, { filter: key });
      return ms < 1_000
        ? ok(`stored and synced in ${ms} ms`)
        : warn(
            `stored and synced in ${ms} ms: the disk is slow, and every job waits for one such write`,
            "a faster disk for <data>/nats: docs/operations.md#broker-slow",
          );
    } catch (error) {
      return fail(`the broker does not store: ${messageOf(error)}`, `df -h ${at.data}; docs/operations.md#disk-full`);
    }
  }),
];

interface Server {
  name: string;
  syncAlways: boolean;
  storeDir: string;
}

/** What each running server that stores says of itself, over the system account; why none can be asked. */
async function everyServer({ settings }: Patient): Promise<Server[] | string> {
  const context = settings.nats ?? leftContext(settings.data);
  if (context === null) return "no coordinator says where its broker is";
  const system = await connectBus(await ownCredential(settings, context, "system"));
  try {
    const answers = await new ServersOfCluster(system).jetstream();
    return answers.flatMap(({ server, data }) => (data?.enabled ? [{ ...data, name: server.name }] : []));
  } finally {
    await system.close();
  }
}

/** Type of the file system that holds a path, by the longest mount point that it is under. */
function fileSystemOf(at: Patient, path: string): string | null {
  const mounts = (readText(at, "/proc/mounts") ?? "").split("\n").map((line) => line.split(" "));
  const holding = mounts.filter(([, point = ""]) => path === point || path.startsWith(point.endsWith("/") ? point : `${point}/`));
  return holding.sort(([, a = ""], [, b = ""]) => b.length - a.length)[0]?.[2] ?? null;
}
