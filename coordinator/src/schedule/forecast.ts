import { Heap } from "./heap.ts";
import type { Lane } from "./lane.ts";
import { endsAt, suits } from "./place.ts";
import type { Entry, Share } from "./queue.ts";

/** When a waiting job should get its turn, if every job takes as long as expected and nobody asks for more. */
export interface Forecast {
  /** 1: the next to start. */
  position: number;
  /** Until it starts, ms. */
  etaMs: number;
}

interface Served {
  virtualMs: number;
  id: string;
  weight: number;
  entries: Entry[];
}

/**
 * Plays the queue of a lane forward, by priority and fair share. It knows nothing of starving priorities, of deadlines, and of gaps that short jobs fill; a
 * gang takes the devices that are free first, of whichever agent. O(jobs ahead × log devices).
 */
export function forecast(lane: Lane, target: Entry, usable: (dev: Parameters<typeof endsAt>[0]) => boolean, now: number): Forecast | null {
  const suitable = [...lane.agents.values()]
    .map((devs) => [...devs].filter((dev) => usable(dev) && suits(target.job, dev)))
    .filter((devs) => devs.length >= target.job.devices)
    .flat();
  if (suitable.length === 0) return null;
  const ends = suitable.map((dev, n) => ({ n, at: Math.max(now, endsAt(dev)) }));
  const free = new Heap<{ n: number; at: number }>((a, b) => a.at < b.at || (a.at === b.at && a.n < b.n));
  for (const end of ends) free.put(end);
  let position = 0;
  for (const level of lane.levels) {
    const order = new Heap<Served>((a, b) => a.virtualMs < b.virtualMs || (a.virtualMs === b.virtualMs && a.id < b.id));
    for (const share of level.byClock.ordered()) order.put(served(share));
    for (let first = order.first(); first; first = order.first()) {
      const entry = first.entries.pop();
      if (!entry) {
        order.remove(first);
        continue;
      }
      position++;
      const { devices, expectedMs } = entry.job;
      const taken = [];
      for (let end = free.first(); end && taken.length < devices; end = free.first()) {
        free.remove(end);
        taken.push(end);
      }
      const start = Math.max(...taken.map((end) => end.at));
      if (entry === target) return { position, etaMs: start - now };
      for (const end of taken) free.put(Object.assign(end, { at: start + expectedMs }));
      first.virtualMs += (expectedMs * devices) / first.weight;
      order.put(first);
    }
  }
  return null;
}

function served({ member, virtualMs, queues }: Share): Served {
  const entries = [...queues.values()].flatMap((fifo) => [...fifo]).sort((a, b) => b.seq - a.seq);
  return { virtualMs, id: member.campaign.id, weight: member.campaign.weight, entries };
}
