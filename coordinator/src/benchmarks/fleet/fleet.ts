import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Settings } from "../../config.ts";
import type { BenchReport, Row } from "../bench-report.ts";
import { beats } from "./beats.ts";
import { restart } from "./restart.ts";

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
  signal: AbortSignal;
  log: NodeJS.WritableStream;
}

export const FLEET = { agents: 10_000, campaigns: 250, experiments: 10_000, beatS: 10 };

/** One after the other, so that none disturbs another. */
const LANES: readonly ((site: FleetSite) => Promise<Row[]>)[] = [restart, beats];

/** What the coordinator can do with a large fleet and a long past. Stopped or failed, it leaves no process and no file behind. */
export async function benchFleet(options: Omit<FleetSite, "dir">): Promise<BenchReport> {
  const dir = await mkdtemp(join(tmpdir(), "vibeserve-fleet-"));
  try {
    const rows: Row[] = [];
    for (const lane of LANES) rows.push(...(await lane({ ...options, dir })));
    return { bench: "fleet", rows, notMeasured: [] };
  } finally {
    await rm(dir, { recursive: true, force: true, maxRetries: 3 });
  }
}
