import { join } from "node:path";
import { AgentInfo, AgentsPage, BUCKETS, decode, encode, subjects } from "@vibeserve/shared";
import { childEnvironment } from "../../config.ts";
import { agentRows } from "../../enrolment/agent-rows.ts";
import { AgentRegistry } from "../../fleet/agent-registry.ts";
import { schedulableDevices } from "../../fleet/schedulable.ts";
import { delay } from "../../process/backoff.ts";
import { SupervisedChild } from "../../process/child.ts";
import { Scheduler } from "../../schedule/scheduler.ts";
import { row, type Row } from "../bench-report.ts";
import { openSite, within } from "../lane.ts";
import { bytesOf } from "./history.ts";
import type { FleetSite } from "./fleet.ts";

/** Rows of a page of the verb. */
const PAGE = 200;

/** Beats of a fleet as the coordinator's registry hears them, beside a subscription that counts them. They come from a process of their own, over one connection. */
export async function beats({ settings, dir, agents, beatS, signal, log }: FleetSite): Promise<Row[]> {
  await using own = new AsyncDisposableStack();
  const data = join(dir, "beats");
  const { broker, nc, js } = await openSite({ ...settings, data }, signal, own);
  const frozen = decode(AgentInfo, bytesOf("AgentInfo/ready.json"), "agent");
  const agentOf = (agentId: string): AgentInfo => ({
    ...frozen,
    ...{ agentId, startedAt: 1, devices: frozen.devices.map((d) => ({ ...d, id: `${agentId}-cpu` })) },
  });
  const idOf = (i: number) => `bench-${i}`;
  let under: Promise<unknown>[] = [];
  for (let i = 0; i < agents; i++) {
    const key = `$KV.${BUCKETS.agents}.${idOf(i)}.info`;
    under.push(js.publish(key, encode(AgentInfo, agentOf(idOf(i)), key), { timeout: 30_000 }));
    if (under.length < 500) continue;
    await Promise.all(under);
    under = [];
  }
  await Promise.all(under);
  const child = new SupervisedChild({
    ...{ name: "beats", command: process.execPath, env: childEnvironment({}), pidFile: null, log: () => undefined },
    args: [join(import.meta.dirname, "beats-child.ts"), broker.url, join(data, "nats"), String(agents)],
    logFile: join(data, "beats.out"),
  });
  own.defer(() => child.stop(1_000));

  let heard = 0;
  const counting = nc.subscribe(subjects.beat("*"), {
    callback: () => {
      heard++;
    },
  });
  child.start();
  await within(
    untilTrue(() => heard > agents / 5, signal),
    "beats come",
    signal,
  );
  const percent = async () => {
    const [cpu, from] = [process.cpuUsage(), performance.now()];
    await delay(beatS * 1_000, signal);
    const { user, system } = process.cpuUsage(cpu);
    return (user + system) / 10 / (performance.now() - from);
  };
  const counted = heard;
  const floor = await percent();
  const rate = (heard - counted) / beatS;
  counting.unsubscribe();
  const opened = performance.now();
  const registry = own.use(
    await AgentRegistry.open({ nc, js, enrolled: () => ({ publicKey: frozen.publicKey, pools: frozen.pools }), log: () => undefined }),
  );
  const openS = (performance.now() - opened) / 1_000;
  await within(
    untilTrue(() => registry.list().length === agents, signal),
    "all agents are heard of",
    signal,
  );
  const cost = await percent();
  const snapshotS = snapshot(registry);
  log.write(`beats: ${agents} agents, ${rate.toFixed(0)} beats/s\n`);
  return [
    row(`${agents} agents: beats, CPU`, cost, "% of a core", "<= 10"),
    row(`floor: a subscription that counts ${rate.toFixed(0)} beats/s, CPU`, floor, "% of a core", ""),
    row(`${agents} agents: snapshot of agents, devices and queues, encoded`, snapshotS, "s", "<= 1"),
    row(`${agents} agents: registry opened`, openS, "s", ""),
  ];
}

/** How long the coordinator takes to hand out the whole fleet: every page of the verb `agents`, and the scheduler's view of their devices. s. */
function snapshot(registry: AgentRegistry): number {
  const scheduler = new Scheduler();
  const enrolled = registry.list().map(({ agentId, publicKey, pools }) => ({ agentId, publicKey, pools }));
  for (const agent of registry.list()) for (const device of schedulableDevices(agent)) scheduler.device(device);
  const view = {
    enrolled,
    waiting: [],
    revoked: [],
    info: (id: string) => registry.get(id),
    heardAt: (id: string) => registry.heardAt(id),
    health: () => null,
    incompatible: () => null,
    twice: (id: string) => registry.twice(id),
  };
  const from = performance.now();
  for (let [after, more]: [string | null, boolean] = [null, true]; more;) {
    const page = agentRows(view, after, PAGE);
    encode(AgentsPage, { v: 1, kind: "agents", agents: page.rows, more: page.more }, "agents");
    [after, more] = [page.rows.at(-1)?.agentId ?? null, page.more];
  }
  scheduler.snapshot(Date.now());
  scheduler.idle(Date.now());
  return (performance.now() - from) / 1_000;
}

async function untilTrue(is: () => boolean, signal: AbortSignal): Promise<void> {
  while (!is() && !signal.aborted) await delay(50, signal);
}
