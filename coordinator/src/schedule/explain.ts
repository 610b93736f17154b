import type { Board } from "./board.ts";
import { forecast } from "./forecast.ts";
import type { Dev, Lane, Run } from "./lane.ts";
import type { Explanation, SchedulableJob } from "./model.ts";
import { suits, underCap } from "./place.ts";
import type { Entry } from "./queue.ts";

/** What a scheduler knows, for those who ask why. */
export interface Known {
  board: Board;
  waiting: ReadonlyMap<string, Entry>;
  runs: ReadonlyMap<string, Run>;
  after: ReadonlyMap<string, SchedulableJob>;
}

export function explain({ board, waiting, runs, after }: Known, jobId: string, now: number): Explanation {
  const run = runs.get(jobId);
  if (run) {
    const lanes = run.share ? [run.share.lane] : [];
    const where = `runs on ${run.deviceIds.join(", ")} for ${seconds(now - run.at)}, expected ${seconds(run.expectedMs)}`;
    const next = after.get(jobId);
    const reason = next ? `attempt ${run.job.attempt} ${where}; attempt ${next.attempt} waits for its end` : where;
    const etaMs = Math.max(0, run.at + run.expectedMs - now);
    return { jobId, state: "running", position: null, etaMs, reason, devices: devices(board, lanes, now) };
  }
  const entry = waiting.get(jobId);
  if (!entry) return { jobId, state: "unknown", position: null, etaMs: null, reason: "it neither waits nor runs here", devices: [] };
  const lanes = entry.places.map((p) => p.share.lane);
  const usable = (dev: Dev) => board.blocked(dev) === null;
  const turns = lanes.flatMap((lane) => forecast(lane, entry, usable, now) ?? []).sort((a, b) => a.etaMs - b.etaMs);
  const { position, etaMs } = turns[0] ?? { position: null, etaMs: null };
  return { jobId, state: "waiting", position, etaMs, reason: reason(entry, lanes, board), devices: devices(board, lanes, now, entry.job) };
}

function reason(entry: Entry, lanes: readonly Lane[], board: Board): string {
  const { job, places } = entry;
  if (places.length > 0 && places.every((p) => !underCap(p.share, job)))
    return `campaign ${job.campaign} may hold ${places[0]?.share.member.campaign.maxDevices ?? 0} devices at once, and holds ${places[0]?.share.member.held ?? 0}`;
  const devs = lanes.flatMap(devsOf);
  const able = (dev: Dev): boolean => suits(job, dev) && board.blocked(dev) === null;
  const suitable = devs.filter(able);
  const pools = job.pools.join(" or ");
  const most = Math.max(0, ...lanes.flatMap(({ agents }) => [...agents.values()].map((own) => [...own].filter(able).length)));
  if (job.devices > 1 && most < job.devices)
    return `no agent has ${job.devices} devices of pool ${pools} that could take it together: the most is ${most}`;
  if (suitable.length < job.devices)
    return `${suitable.length} of ${devs.length} ${job.slot}s of pool ${pools} could take it, and it needs ${job.devices}`;
  if (lanes.some((lane) => lane.reservation?.entry === entry))
    return `${job.devices} devices of one agent are kept for it until all are free`;
  if (job.devices > 1) return `no agent of pool ${pools} has ${job.devices} free devices that suit`;
  const free = suitable.filter((dev) => dev.free).length;
  return free === 0
    ? `no ${job.slot} of pool ${pools} is free: ${suitable.length} suit, all are taken`
    : `${free} free ${job.slot}s that suit are kept for a gang`;
}

function devices(board: Board, lanes: readonly Lane[], now: number, job?: SchedulableJob): { id: string; doing: string }[] {
  return lanes.flatMap(devsOf).map((dev) => ({ id: dev.device.id, doing: doing(board, dev, now, job) }));
}

/** Every device that runs nothing, and why, by id. */
export function idle(board: Board, now: number): { id: string; reason: string }[] {
  return [...board.devices.values()]
    .filter((dev) => !dev.run)
    .map((dev) => ({ id: dev.device.id, reason: doing(board, dev, now) }))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** What a device does, or why it does nothing; with a job: why it does not run that one. */
function doing(board: Board, dev: Dev, now: number, job?: SchedulableJob): string {
  const { run, lane, device, domain, reservation } = dev;
  if (run) return `runs job ${run.job.id} for ${seconds(now - run.at)}, expected ${seconds(run.expectedMs)}`;
  const blocked = board.blocked(dev);
  if (blocked !== null) return blocked;
  const [other] = domain.runs;
  if (other) return `job ${other.job.id} runs in its exclusion domain ${domain.id}, on ${other.deviceIds.join(", ")}`;
  if (!dev.free) return `its exclusion domain ${domain.id} is kept for a gang of another pool`;
  if (reservation) return `is kept for gang ${reservation.entry.job.id}: ${reservation.free.size} of ${reservation.devices.size} are free`;
  if (job && !suits(job, dev)) return device.health === "suspect" ? SUSPECT : `job ${job.id} may not run on it`;
  if (lane.waiting === 0) return `no job waits for a ${lane.slot} of pool ${lane.pool}`;
  if (device.health === "suspect") return SUSPECT;
  return `none of the ${lane.waiting} jobs that wait for its pool may run on it alone, or their campaigns hold as many devices as they may`;
}

const SUSPECT = "is suspect: it takes canaries only";
const devsOf = (lane: Lane): Dev[] =>
  [...lane.agents.values()].flatMap((devs) => [...devs]).sort((a, b) => (a.device.id < b.device.id ? -1 : 1));
const seconds = (ms: number): string => `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`;
