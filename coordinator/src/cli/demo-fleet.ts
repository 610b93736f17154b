import { join } from "node:path";
import { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { devicePool, type Device, type Ratio, type Target } from "@vibeserve/shared";
import { z } from "zod";
import type { ApiClient } from "../api/client.ts";
import { built, type Campaign } from "../campaign/campaign.machine.ts";
import { commandLine } from "../command-line.ts";
import type { Settings } from "../config.ts";
import { eventLogger, openLog } from "../process/log-file.ts";
import { campaignReport } from "../report/report-model.ts";
import { showRatio, table } from "../report/summary-table.ts";
import { openLines } from "../view/live-view.ts";
import { agentArgs, askAgent, type AgentOptions } from "./agent-process.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { clearLeftovers, LocalMachine } from "./local-machine.ts";
import { prepare } from "./prepare.ts";
import { startLock } from "./start.ts";
import { startSignals } from "./stop-signal.ts";
import { readTargetFile } from "./target-file.ts";
import { hold } from "./up.ts";
import { follow, type Watched } from "./watch.ts";

/** Both agents register within a second of their start; a probe of the peaks takes some more the first time. */
const REGISTERED_MS = 60_000;
const LOOK_MS = 200;
const MASKED = "vibeserve.dev/masked";

/** What one pool came to. Instructions: of the champion's build, as the agent that built it disassembles it. */
export interface DemoRow {
  target: string;
  campaign: string;
  pool: string;
  isa: string;
  /** The level that the pool is masked to; null: it is not. */
  mask: string | null;
  outcome: string | null;
  champion: { experiment: string; skills: string[]; bindings: Record<string, string>; tree: string; ratioToSeed: Ratio } | null;
  instructions: z.infer<typeof Instructions> | null;
  elapsedS: number;
}

export interface DemoReport {
  v: 1;
  kind: "demo.fleet";
  command: string;
  device: string;
  elapsedS: number;
  rows: DemoRow[];
  /** Both have a proven champion, of another tree and of instructions that are encoded otherwise. */
  differ: boolean;
}

const Instructions = z.object({ instructions: z.int(), vex: z.int(), evex: z.int(), ymm: z.int(), zmm: z.int(), tiles: z.int() });
const Disassembly = z.object({ files: z.array(Instructions) });

/** Two pools on this machine, its own and one masked to the next level below; the same workload specialised for both at once. Throws CliError unless both champions are proven and differ. */
export async function demoFleet(invocation: Invocation, options: { setup: boolean }): Promise<void> {
  const signals = startSignals();
  const { output } = invocation;
  const settings = { ...invocation.settings, data: join(invocation.settings.data, "demo-fleet"), pool: null, agentId: "full" };
  const masked = { ...settings, data: join(settings.data, "masked"), agentId: "masked" };
  const base = readTargetFile(join(settings.root, "targets/demo/fleet.yaml"));
  const lock = hold(startLock(settings.data), "vibeserve start");
  const from = performance.now();
  try {
    const log = eventLogger(openLog(settings.data, "demo-fleet", settings.logLevel));
    for (const own of [settings, masked]) await clearLeftovers(own, log);
    const assets = options.setup ? await prepare(settings, output, signals.stop) : null;
    const agent: AgentOptions = { assets, unsafeNoSandbox: false };
    const second = { settings: masked, agent: { ...agent, isaMask: "next" as const } };
    const natsServer = assets?.natsServer ?? settings.natsServer;
    const trouble = (message: string): void => output.say(message);
    const machine = await LocalMachine.start({ settings, agent, second, natsServer, record: false, trouble, log }, signals.stop);
    signals.kill = () => machine.kill();
    try {
      const devices = await bothDevices(machine.client, signals.stop);
      const targets = devices.map(({ device }) => targetFor(base, device));
      const ids = await submitBoth(machine.client, targets);
      const following = Promise.all(
        ids.map((id, i) =>
          follow(machine.client, id, openLines(named(output.view, targets[i]?.name ?? "")), signals.stop, { untilPaused: true }),
        ),
      );
      const watched = await Promise.race([following, machine.failed]);
      const rows: DemoRow[] = [];
      for (const [i, w] of watched.entries()) {
        const where = devices[i];
        if (w.kind !== "ended" || !where)
          throw new CliError(
            EXIT.negative,
            `${targets[i]?.name ?? ""} did not end: ${w.kind}${w.kind === "paused" ? `: ${w.reason}` : ""}`,
          );
        rows.push(await rowOf(w, where, where.device.labels[MASKED] === "true" ? second : { settings, agent }));
      }
      await machine.stop();
      conclude(invocation, rows, devices[0]?.device.name ?? "", (performance.now() - from) / 1000);
    } catch (error) {
      await machine.stop();
      throw error;
    }
  } finally {
    lock.release();
  }
}

interface Where {
  pool: string;
  device: Device;
}

/** The unmasked one first. */
async function bothDevices(client: ApiClient, stop: AbortSignal): Promise<Where[]> {
  for (const ends = performance.now() + REGISTERED_MS; performance.now() < ends; await sleep(LOOK_MS, null, { signal: stop })) {
    const { agents } = await client.status();
    const found = agents.flatMap((a) => a.devices.map((device) => ({ pool: devicePool(a, device), device })));
    if (found.length === 2)
      return found.sort((a, b) => Number(a.device.labels[MASKED] === "true") - Number(b.device.labels[MASKED] === "true"));
  }
  throw new CliError(EXIT.unreachable, `the two agents did not register within ${REGISTERED_MS / 1000} s`);
}

function targetFor(base: Target, { isa, labels }: Device): Target {
  const mask: Record<string, string> = labels[MASKED] === undefined ? {} : { [MASKED]: labels[MASKED] };
  return { ...base, name: `${base.name}-${isa}`, device: { ...base.device, "vibeserve.dev/cpu.isa": isa, ...mask } };
}

/** Both before either is watched: neither has the fleet to itself. What an interrupted demo left is cancelled. */
async function submitBoth(client: ApiClient, targets: readonly Target[]): Promise<string[]> {
  const { campaigns } = await client.campaigns();
  for (const { campaign, state } of campaigns) if (state !== "ended") await client.change("cancel", campaign);
  const options = { baselines: [], repeat: commandLine("demo-fleet") };
  const submitted = await Promise.all(targets.map((target) => client.submit({ target, options })));
  return submitted.map(({ campaign }) => campaign);
}

/** Lines of two campaigns go to one terminal. */
function named(out: NodeJS.WritableStream, name: string): NodeJS.WritableStream {
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      if (chunk.length > 0) out.write(`${name.padEnd(18)} ${chunk.toString()}`);
      done();
    },
  });
}

async function rowOf(
  { campaign, outcome }: Extract<Watched, { kind: "ended" }>,
  { pool, device }: Where,
  of: { settings: Settings; agent: AgentOptions },
): Promise<DemoRow> {
  const report = campaignReport(campaign);
  const crowned = campaign.champions.at(-1);
  const { target, id, elapsedS } = report;
  const mask = device.labels["vibeserve.dev/isa.mask"] ?? null;
  const row: DemoRow = { target, campaign: id, pool, isa: device.isa, mask, outcome, champion: null, instructions: null, elapsedS };
  if (!crowned) return row;
  const experiment = crowned.experimentId;
  return {
    ...row,
    champion: {
      experiment,
      skills: skillsOf(campaign, experiment),
      bindings: crowned.bindings,
      tree: crowned.git.treeDigest,
      ratioToSeed: report.ratioToSeed ?? crowned.repeat,
    },
    instructions: await instructionsOf(built(campaign, experiment)?.buildDigest ?? "", of),
  };
}

/** From the seed up to the experiment. */
function skillsOf(c: Campaign, id: string): string[] {
  const x = c.experiments.find((e) => e.id === id);
  return x ? [...skillsOf(c, x.hypothesis.parent), ...x.hypothesis.skills] : [];
}

async function instructionsOf(
  buildDigest: string,
  { settings, agent }: { settings: Settings; agent: AgentOptions },
): Promise<DemoRow["instructions"]> {
  const [main = "", ...args] = agentArgs(settings, agent, []);
  const found = await askAgent([main, "disassemble", "--build", buildDigest, ...args], Disassembly, 120_000);
  return found.files[0] ?? null;
}

/** The widest encoding that a champion's code holds. */
const encoding = ({ instructions: n }: DemoRow): string =>
  n === null ? "?" : n.tiles > 0 ? "tiles" : n.evex > 0 ? "EVEX" : n.vex > 0 ? "VEX" : "legacy";

function conclude({ output }: Invocation, rows: DemoRow[], device: string, elapsedS: number): void {
  const [a, b] = rows;
  const proven = rows.every((r) => r.outcome === "proven" && r.champion !== null);
  const differ = proven && a !== undefined && b !== undefined && a.champion?.tree !== b.champion?.tree && encoding(a) !== encoding(b);
  const report: DemoReport = { v: 1, kind: "demo.fleet", command: commandLine("demo-fleet"), device, elapsedS, rows, differ };
  const shown = rows.map((r) => [
    r.target,
    r.pool,
    r.champion?.skills.join(" + ") ?? `none (${r.outcome ?? "?"})`,
    r.champion?.tree.slice(0, 12) ?? "—",
    r.instructions ? `${encoding(r)} (${r.instructions.zmm} zmm, ${r.instructions.ymm} ymm)` : "—",
    showRatio(r.champion?.ratioToSeed ?? null),
  ]);
  const text = [
    "",
    table(["target", "pool", "champion", "tree", "instructions", "over the seed"], shown),
    "",
    differ ? "both champions are proven, and they differ: other trees, other instructions" : "NOT two proven champions that differ",
    `time ${elapsedS.toFixed(0)} s`,
  ];
  output.answer({ ...report }, text.join("\n"));
  if (!differ) throw new CliError(EXIT.negative, "the two targets did not come to two proven champions that differ");
}
