import { join } from "node:path";
import type { Settings } from "../../config.ts";
import { temporaryFolder } from "../../process/temporary-folder.ts";
import type { BenchReport, Row } from "../bench-report.ts";
import { beats } from "./beats.ts";
import { openSite } from "../lane.ts";
import { openCrowd } from "./crowd.ts";
import { dispatchRate } from "./dispatch-rate.ts";
import { fanOut } from "./fan-out.ts";
import { floorP50 } from "./floor.ts";
import { restart } from "./restart.ts";
import { settledRate } from "./settled-rate.ts";
import { simulated } from "./simulated.ts";

/** What a lane is given. All lanes together take at most 10 minutes. */
export interface FleetSite {
  settings: Settings;
  /** An empty folder that goes when the bench is over. */
  dir: string;
  agents: number;
  campaigns: number;
  experiments: number;
  /** How long beats are listened to. */
  beatS: number;
  /** Agents with a connection and a key of their own; jobs a second that are offered to them, and for how long. */
  connected: number;
  rate: number;
  rateS: number;
  /** Campaigns that each ask for the next job when the last is settled, and for how long that is counted. */
  searching: number;
  settledS: number;
  /** Of the artifact, and how many fetch it. */
  fanBytes: number;
  fanAgents: number;
  /** Simulated fleets, drawn anew. */
  fleets: number;
  signal: AbortSignal;
  log: NodeJS.WritableStream;
}

export const FLEET = {
  ...{ agents: 10_000, campaigns: 250, experiments: 10_000, beatS: 10 },
  ...{ connected: 1_000, rate: 200, rateS: 20, searching: 250, settledS: 15 },
  ...{ fanBytes: 200e6, fanAgents: 20, fleets: 5 },
};

async function crowd({ settings, dir, connected, rate, rateS, searching, settledS, signal, log }: FleetSite): Promise<Row[]> {
  await using own = new AsyncDisposableStack();
  log.write(`fleet: ${connected} agents connect\n`);
  const site = await openCrowd({ ...settings, data: join(dir, "crowd") }, connected, signal, own);
  const floor = await floorP50(site);
  return [floor, ...(await dispatchRate(site, rate, rateS, floor.value)), ...(await settledRate(site, searching, settledS))];
}

async function artifacts({ settings, dir, fanBytes, fanAgents, signal, log }: FleetSite): Promise<Row[]> {
  await using own = new AsyncDisposableStack();
  log.write(`fleet: ${fanBytes / 1e6} MB to ${fanAgents} agents\n`);
  const site = await openSite({ ...settings, data: join(dir, "fan") }, signal, own);
  return await fanOut(site, fanBytes, fanAgents);
}

/** One after the other, so that none disturbs another. */
const LANES: readonly ((site: FleetSite) => Promise<Row[]>)[] = [restart, beats, crowd, artifacts, simulated];

/** What the coordinator can do with a large fleet and a long past. Stopped or failed, it leaves no process and no file behind. */
export async function benchFleet(options: Omit<FleetSite, "dir">): Promise<BenchReport> {
  using dir = temporaryFolder("fleet");
  const rows: Row[] = [];
  const site = { ...options, dir: dir.path, settings: { ...options.settings, port: -1 } };
  for (const lane of LANES) rows.push(...(await lane(site)));
  return { bench: "fleet", rows, notMeasured: [] };
}
