import type { Board } from "./board.ts";
import type { Run } from "./lane.ts";
import type { Slot } from "./model.ts";
import type { Member, Share } from "./queue.ts";

/** Sizes, queues and shares at one moment, for metrics. */
export interface Snapshot {
  devices: number;
  /** Devices that would take a job now. */
  free: number;
  waiting: number;
  running: number;
  /** One a pool and slot. keptFor: the gang that it saves devices for. */
  lanes: {
    pool: string;
    slot: Slot;
    simulated: boolean;
    devices: number;
    free: number;
    waiting: number;
    running: number;
    keptFor: string | null;
  }[];
  /** One a campaign and lane. usedMs: device-time so far, with what runs now; virtualMs: what the fair share compares. */
  shares: {
    campaign: string;
    pool: string;
    slot: Slot;
    simulated: boolean;
    waiting: number;
    running: number;
    usedMs: number;
    virtualMs: number;
  }[];
}

export function snapshot(board: Board, members: Iterable<Member>, waiting: number, runs: Iterable<Run>, now: number): Snapshot {
  const at = new Map<Share | null, { jobs: number; ms: number }>();
  for (const run of runs) {
    const mine = at.get(run.share) ?? { jobs: 0, ms: 0 };
    at.set(run.share, { jobs: mine.jobs + 1, ms: mine.ms + Math.max(0, now - run.at) * run.deviceIds.length });
  }
  const lanes = [...board.lanes.values()].map((lane) => ({
    pool: lane.pool,
    slot: lane.slot,
    simulated: lane.simulated,
    devices: lane.devices,
    free: lane.freeDevices,
    waiting: lane.waiting,
    running: lane.running,
    keptFor: lane.reservation?.entry.job.id ?? null,
  }));
  const shares = [...members].flatMap((member) =>
    [...member.shares.values()].map((share) => {
      const mine = at.get(share);
      return {
        campaign: member.campaign.id,
        pool: share.lane.pool,
        slot: share.lane.slot,
        simulated: share.lane.simulated,
        waiting: share.waiting,
        running: mine?.jobs ?? 0,
        usedMs: share.usedMs + (mine?.ms ?? 0),
        virtualMs: share.virtualMs,
      };
    }),
  );
  const free = lanes.reduce((n, lane) => n + lane.free, 0);
  const running = [...at.values()].reduce((n, { jobs }) => n + jobs, 0);
  return { devices: board.devices.size, free, waiting, running, lanes, shares };
}
