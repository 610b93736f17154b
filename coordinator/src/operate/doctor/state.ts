import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { JetStreamApiError, StorageType } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { BUCKETS, decode, PROTOCOL, STREAMS } from "@vibeserve/shared";
import { z } from "zod";
import { AgentPrincipal } from "../../broker/principals.ts";
import { RESULTS_CONSUMER, STREAM_NAMES } from "../../bus/streams.ts";
import { commandLine } from "../../command-line.ts";
import { Enrolments } from "../../enrolment/enrolment.machine.ts";
import type { Settings } from "../../config.ts";
import { ChainBrokenError, isUnreadable } from "../../log/chain.ts";
import { listCampaigns, readLog, type LogBus } from "../../log/event-log.ts";
import { older, packageVersion } from "../../version.ts";
import { overBroker } from "./broker.ts";
import { check, fail, ok, skipped, warn, type Check, type Finding } from "./check.ts";

/** More than a coordinator takes in at once. */
const BACKLOG = 1_000;
/** An agent writes its entry within seconds of its start. */
const AHEAD_MS = 5_000;

/** What an agent of any release says of itself. */
const Entry = z.looseObject({
  ...{ agentId: z.string(), version: z.string().default("?"), protocol: z.int().default(1), startedAt: z.number() },
  ...{
    host: z.string().default("?"),
    machine: z.string().optional(),
    state: z.string().default("?"),
    devices: z.array(z.looseObject({ simulated: z.boolean() })).default([]),
  },
});
type Entry = z.infer<typeof Entry> & { writtenAt: number };

/** What the broker keeps: streams, logs, who is in, and what each agent said when it came. */
export const STATE: readonly Check[] = [
  overBroker("streams", "coordinator", async ({ jsm }, { settings }) => {
    const wanted = replicasOf(settings);
    for (const name of STREAM_NAMES)
      try {
        const { config, cluster } = await jsm.streams.info(name);
        if (config.storage !== StorageType.File)
          return fail(`stream ${name} is kept in ${config.storage}`, `nats stream rm ${name}, restore a backup, restart the coordinator`);
        if (config.num_replicas < wanted)
          return fail(`stream ${name} has ${config.num_replicas} replicas of ${wanted}`, `nats stream update ${name} --replicas=${wanted}`);
        const behind = (cluster?.replicas ?? []).filter((r) => !r.current || r.offline);
        if (behind.length > 0)
          return warn(
            `stream ${name}: ${behind.map((r) => r.name).join(", ")} ${behind.length === 1 ? "is" : "are"} behind or away`,
            "nats server report jetstream; bring that server back",
          );
      } catch (error) {
        if (!(error instanceof JetStreamApiError)) throw error;
        return fail(`stream ${name}: ${error.message}`, `${commandLine("up")} makes what is missing; what was in it comes from a backup`);
      }
    return ok(`${STREAM_NAMES.length} streams on disk, ${wanted === 1 ? "one copy" : `${wanted} copies`} each`);
  }),
  overBroker("results-backlog", "coordinator", async ({ jsm }) => {
    const { num_pending, num_ack_pending } = await jsm.consumers.info(STREAMS.results, RESULTS_CONSUMER);
    const waiting = num_pending + num_ack_pending;
    return waiting <= BACKLOG
      ? ok(`${waiting} results wait for their logs`)
      : warn(`${waiting} results wait for their logs`, `${commandLine("status")}; if it stays so: docs/operations.md#results-wait`);
  }),
  overBroker("event-logs", "coordinator", async (bus) => {
    let events = 0;
    const broken: string[] = [];
    const ids = await listCampaigns(bus);
    for (const id of ids)
      try {
        events += (await readLog(bus, id)).length;
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        broken.push(error instanceof ChainBrokenError ? error.message : `campaign ${id}: ${error.message}`);
      }
    return broken.length === 0
      ? ok(`${ids.length} campaigns, ${events} events, every chain whole`)
      : fail(broken.join("; "), `${commandLine("restore")} of the newest backup before it: docs/operations.md#campaign-unreadable`);
  }),
  check("enrolment", "coordinator", ({ data }) => enrolment(join(data, "nats/keys"))),
  overBroker("agents-release", "coordinator", async (bus) => {
    const agents = await entries(bus);
    const own = packageVersion();
    const say = (found: Entry[]) => found.map((a) => `${a.agentId} (${a.version}, protocol ${a.protocol})`).join(", ");
    const other = agents.filter((a) => a.protocol !== PROTOCOL);
    if (other.length > 0)
      return fail(
        `of another protocol than this release's ${PROTOCOL}, so without work: ${say(other)}`,
        "install one release on both: docs/operations.md#agents-incompatible",
      );
    const behind = agents.filter((a) => !a.devices.some((d) => d.simulated) && older(a.version, own));
    return behind.length === 0
      ? ok(`${agents.length} registered, all of protocol ${PROTOCOL}`)
      : warn(`older than this release ${own}: ${say(behind)}`, "update them next; within one protocol they work");
  }),
  overBroker("agents-clock", "coordinator", async (bus) => {
    const ahead = (await entries(bus)).filter((a) => a.startedAt - a.writtenAt > AHEAD_MS);
    return ahead.length === 0
      ? ok("no agent says that it started after the broker heard of it")
      : warn(
          ahead
            .map((a) => `${a.agentId}'s clock is at least ${Math.round((a.startedAt - a.writtenAt) / 1000)} s ahead of the broker's`)
            .join("; "),
          "on that node: timedatectl set-ntp true",
        );
  }),
  overBroker("cloned-machines", "coordinator", async (bus) => {
    const byMachine = Map.groupBy(
      (await entries(bus)).filter((a) => a.machine !== undefined),
      (a) => a.machine,
    );
    const clones = [...byMachine.values()].filter((same) => new Set(same.map((a) => a.host)).size > 1);
    if (clones.length === 0) return ok("no two hosts have one machine id");
    return warn(
      `one machine id on different hosts, so they measure one at a time: ${clones.map((c) => c.map((a) => `${a.agentId} on ${a.host}`).join(", ")).join("; ")}`,
      "on each clone: rm /etc/machine-id && systemd-machine-id-setup, then restart its agent",
    );
  }),
];

/** What a cluster was asked for; a broker of one's own has one copy. */
const replicasOf = ({ nats }: Settings): number => nats?.replicas ?? 1;

async function entries({ js }: LogBus): Promise<Entry[]> {
  const found: Entry[] = [];
  for await (const { key, value, operation, created } of await (await new Kvm(js).open(BUCKETS.agents)).history({ key: ">" })) {
    if (operation !== "PUT" || !key.endsWith(".info")) continue;
    const entry = Entry.safeParse(decode(z.unknown(), value, key));
    if (entry.success) found.push({ ...entry.data, writtenAt: created.getTime() });
  }
  return found;
}

const Agents = z.looseObject({ agents: z.array(AgentPrincipal) });

/** Null: there is no such file. Throws where it is no JSON. */
const jsonIn = (path: string): unknown => (existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : null);

/** Two files say who is in and who is out; a kill between them is put right at the next start, an edit by hand is not. */
function enrolment(keys: string): Finding {
  const fix = `restore agents.json and enrolment.json of a backup into ${keys}, then restart the coordinator`;
  try {
    const list = jsonIn(join(keys, "agents.json"));
    const state = jsonIn(join(keys, "enrolment.json"));
    if (list === null && state === null) return skipped("nobody has been enrolled yet");
    const agents = list === null ? [] : Agents.parse(list).agents;
    const { revoked, waiting, tokens } = state === null ? { revoked: [], waiting: [], tokens: [] } : Enrolments.parse(state);
    const twice = agents.find((a, i) => agents.findIndex((b) => b.publicKey === a.publicKey || b.agentId === a.agentId) !== i);
    if (twice) return fail(`agent ${twice.agentId} or its key is enrolled twice`, fix);
    const back = agents.find((a) => revoked.some((r) => r.publicKey === a.publicKey));
    if (back) return fail(`agent ${back.agentId} is enrolled with a key that was revoked`, commandLine("agents", ["revoke", back.agentId]));
    return ok(
      `${agents.length} in, ${waiting.length} waiting, ${revoked.length} put out, ${tokens.filter((t) => t.usedBy === null).length} lines unused`,
    );
  } catch (error) {
    return fail(
      `who is enrolled can't be read: ${error instanceof Error ? error.message.split("\n").slice(0, 4).join(" ") : String(error)}`,
      fix,
    );
  }
}
