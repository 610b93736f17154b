import { join } from "node:path";
import { quantile } from "@vibeserve/shared";
import type { Settings } from "../config.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
import { row, type BenchReport } from "./bench-report.ts";
import { openDispatch } from "./dispatch-lane.ts";
import { openFloor } from "./floor-lane.ts";
import { measureIdle } from "./idle.ts";
import { openSite, type Lane } from "./lane.ts";

export interface DispatchOptions {
  settings: Settings;
  /** Timed jobs; a p99 from fewer than 459 says little. */
  jobs: number;
  warmUps: number;
  /** How long the idle processes are watched. */
  idleS: number;
  signal: AbortSignal;
  log: NodeJS.WritableStream;
}

/** Some 40 s of jobs and 30 s of waiting. */
export const DISPATCH = { jobs: 480, warmUps: 20, idleS: 20 };

/** Jobs in a row before it is the floor's turn, or the other way round (ABBA): both see the same machine. */
const BLOCK = 10;

/**
 * What a job waits for on its way to an idle agent, beside the least that JetStream could do, and what the product costs while it waits for work.
 * Stopped or failed, it leaves no process and no file behind.
 */
export async function benchDispatch(options: DispatchOptions): Promise<BenchReport> {
  const { settings, log } = options;
  using folder = temporaryFolder("dispatch");
  const scratch = folder.path;
  // An empty cache: with weights in it the agent would fill a pool of hidden positions in the background.
  const timed = { ...settings, data: join(scratch, "timed"), cache: join(scratch, "cache"), pool: "bench", agentId: "bench", port: -1 };
  const { dispatch, floor } = await timeLanes({ ...options, settings: timed });
  const rows = [
    row("job dispatch, p50", quantile(dispatch, 0.5), "ms", "<= 3"),
    row("job dispatch, p99", quantile(dispatch, 0.99), "ms", "<= 15"),
    row("floor: raw JetStream, p50", quantile(floor, 0.5), "ms", ""),
    row("floor: raw JetStream, p99", quantile(floor, 0.99), "ms", ""),
    row("dispatch p50 / floor p50", quantile(dispatch, 0.5) / quantile(floor, 0.5), "×", ""),
  ];
  const notMeasured: BenchReport["notMeasured"] = [];
  const what = "idle: coordinator, agent and broker";
  const idle = await measureIdle({ ...settings, data: join(scratch, "idle"), port: -1 }, options.idleS, options.signal, log);
  if (idle.kind === "missing") notMeasured.push({ what, why: idle.why });
  else rows.push(row(`${what}, CPU`, idle.cpuPercent, "% of a core", "<= 1"), row(`${what}, RSS`, idle.rssMb, "MB", "<= 300"));
  return { bench: "dispatch", rows, notMeasured };
}

async function timeLanes({ settings, jobs, warmUps, signal, log }: DispatchOptions): Promise<Record<"dispatch" | "floor", number[]>> {
  await using own = new AsyncDisposableStack();
  const site = await openSite(settings, signal, own);
  const lanes: Record<"dispatch" | "floor", Lane> = { floor: await openFloor(site), dispatch: await openDispatch(site) };
  const times = { floor: [] as number[], dispatch: [] as number[] };
  log.write(`dispatch: ${warmUps} warm-ups and ${jobs} jobs, and as many messages of the floor, on one broker\n`);
  for (const lane of ["floor", "dispatch"] as const) for (let i = 0; i < warmUps; i++) await lanes[lane]();
  for (let done = 0; done < jobs; done += BLOCK)
    for (const lane of (done / BLOCK) % 2 === 0 ? (["floor", "dispatch"] as const) : (["dispatch", "floor"] as const))
      for (let i = done; i < Math.min(done + BLOCK, jobs); i++) times[lane].push(await lanes[lane]());
  return times;
}
