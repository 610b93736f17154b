import type { Dev, Lane, Reservation } from "./lane.ts";
import type { SchedulableJob } from "./model.ts";
import type { Entry, Share } from "./queue.ts";

/** A job and the devices that it should start on. */
export interface Pick {
  entry: Entry;
  share: Share;
  devs: readonly Dev[];
}

/** The next start in this lane by the policy, or null. `reserve` is called for a gang whose turn it is and which does not fit now. */
export function choose(lane: Lane, now: number, reserve: (entry: Entry, share: Share) => void): Pick | null {
  if (lane.waiting === 0 || lane.freeDevices === 0) return null;
  const kept = lane.reservation;
  if (kept && isComplete(kept)) return { entry: kept.entry, share: kept.share, devs: inOrder(kept.free) };
  if (lane.good.size > 0 || (lane.suspect.size > 0 && lane.canaries > 0)) {
    const failed = new Set<string>();
    for (const share of served(lane, now))
      for (const { shape, entry } of share.heads()) {
        if (failed.has(shape) || !underCap(share, entry.job)) continue;
        const devs = entry.job.devices > 1 ? placeGang(lane, entry.job) : placeOne(lane, entry.job);
        if (devs) return { entry, share, devs };
        failed.add(shape);
        if (entry.job.devices > 1) reserve(entry, share);
      }
  }
  return lane.reservation && fillGap(lane, lane.reservation, now);
}

export function* served(lane: Lane, now: number): Generator<Share> {
  for (const level of lane.order(now)) yield* level.order(now, lane.limits.maxHurried);
}

export const isComplete = ({ free, devices }: Reservation): boolean => free.size === devices.size;

export const underCap = ({ member }: Share, job: SchedulableJob): boolean =>
  member.held + job.devices <= (member.campaign.maxDevices ?? Infinity);

/** Whether the device could take the job once it is free. */
export function suits(job: SchedulableJob, { device }: Dev): boolean {
  const { id, state, health } = device;
  if (state !== "ready" || health === "quarantined" || (health === "suspect" && !job.canary)) return false;
  return !job.avoid.includes(id) && (job.only === undefined || job.only.includes(id));
}

function placeOne(lane: Lane, job: SchedulableJob): readonly Dev[] | null {
  for (const heap of job.canary ? [lane.suspect, lane.good] : [lane.good])
    for (const dev of heap.ordered()) if (suits(job, dev)) return [dev];
  return null;
}

/** The agent with the fewest free devices that are enough, so that larger gangs still find room. */
function placeGang(lane: Lane, job: SchedulableJob): readonly Dev[] | null {
  let best: { agentId: string; devs: Dev[] } | null = null;
  for (const [agentId, free] of lane.free) {
    if (free.size < job.devices || (best && free.size > best.devs.length)) continue;
    const devs = [...free].filter((dev) => suits(job, dev));
    if (devs.length < job.devices) continue;
    if (!best || devs.length < best.devs.length || (devs.length === best.devs.length && agentId < best.agentId)) best = { agentId, devs };
  }
  return best && inOrder(best.devs).slice(0, job.devices);
}

/** Devices of the agent that will be free soonest; null: no agent has so many that suit. `freeAt` is Infinity for a device on hold. */
export function reservable(lane: Lane, job: SchedulableJob, freeAt: (dev: Dev) => number): readonly Dev[] | null {
  let best: { at: number; agentId: string; devs: Dev[] } | null = null;
  for (const [agentId, devs] of lane.agents) {
    if (devs.size < job.devices) continue;
    const soonest = inOrder([...devs].filter((dev) => suits(job, dev) && freeAt(dev) < Infinity)).sort((a, b) => freeAt(a) - freeAt(b));
    const last = soonest[job.devices - 1];
    if (!last) continue;
    const at = freeAt(last);
    if (!best || at < best.at || (at === best.at && agentId < best.agentId)) best = { at, agentId, devs: soonest.slice(0, job.devices) };
  }
  return best?.devs ?? null;
}

/** A single job that is expected to end before the gang could start, on a device that is kept for it. */
function fillGap(lane: Lane, kept: Reservation, now: number): Pick | null {
  const [dev] = inOrder(kept.free);
  if (!dev) return null;
  const gapMs = Math.max(...[...kept.devices].filter((d) => !d.free).map(endsAt)) - now;
  if (gapMs <= 0) return null;
  let looked = 0;
  for (const share of served(lane, now))
    for (const { entry: head, fifo } of share.heads()) {
      if (head.job.devices > 1 || !suits(head.job, dev) || !underCap(share, head.job)) continue;
      for (const entry of fifo) {
        if (entry.job.expectedMs <= gapMs) return { entry, share, devs: [dev] };
        if (++looked >= lane.limits.gapScan) return null;
      }
    }
  return null;
}

/** When what blocks the device is expected to be over, ms; in the past when it takes longer than expected, 0 when nothing does. */
export function endsAt({ run, domain }: Dev): number {
  const runs = run ? [run, ...domain.runs] : [...domain.runs];
  return Math.max(0, ...runs.map((r) => r.at + r.expectedMs));
}

const inOrder = (devs: Iterable<Dev>): Dev[] => [...devs].sort((a, b) => (a.device.id < b.device.id ? -1 : 1));
