import type { Demand } from "../schedule/model.ts";
import type { PodClass } from "./pod-class.ts";

/**
 * Which worker pods should be made, and which deleted. Pure.
 *   P1. A class never has more pods than its max that may hold a device: those that are being deleted count.
 *   P2. A pod that starts is counted as a free device: one waiting job makes one pod, however often it is looked.
 *   P3. A pod is deleted when it has ended, when its agent has not registered in time or is gone, and when nothing waits for one that has not started yet.
 *       One whose agent is there ends by itself when it has been idle; a lease is never cut.
 *   P4. After a pod that came to nothing its class waits, longer each time, until one registers.
 */
export interface PodSeen {
  name: string;
  podClass: string;
  createdAt: number;
  /** pending: no container runs yet; gated: it is not admitted to scheduling yet (Kueue). */
  phase: "gated" | "pending" | "running" | "succeeded" | "failed" | "leaving";
  /** Its agent is registered. */
  registered: boolean;
  /** What Kubernetes says of it, for people; "": nothing. */
  says: string;
}

export interface ClassDemand extends Demand {
  /** Campaigns that wait for a device that this class would have. */
  unbound: number;
}

/** Since when pods of a class come to nothing. */
export interface Failing {
  count: number;
  at: number;
}

export interface Plan {
  create: number;
  remove: { name: string; why: string; failed: boolean }[];
}

const FIRST_PAUSE_MS = 10_000;
const LONGEST_PAUSE_MS = 10 * 60_000;

/** No pod of the class is made before that. */
export const pausedUntil = (failing: Failing | null): number =>
  failing === null ? 0 : failing.at + Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failing.count - 1));

export function plan(podClass: PodClass, pods: readonly PodSeen[], demand: ClassDemand, failing: Failing | null, now: number): Plan {
  const remove: Plan["remove"] = [];
  const starting: PodSeen[] = [];
  let holding = 0;
  for (const pod of pods) {
    const { name, phase } = pod;
    if (phase === "succeeded") remove.push({ name, why: "it has ended", failed: false });
    else if (phase === "failed") remove.push({ name, why: `it failed${said(pod)}`, failed: true });
    else {
      holding++;
      if (phase === "leaving" || pod.registered) continue;
      const late = phase !== "gated" && now - pod.createdAt > podClass.startSeconds * 1000;
      const why = `no agent of it is registered ${podClass.startSeconds} s after its start${said(pod)}`;
      if (late) remove.push({ name, why, failed: true });
      else starting.push(pod);
    }
  }
  // One pod binds all campaigns that wait for a device, and compiles where no builder does; more of them would only compile on accelerators.
  const first = demand.unbound + demand.waiting.builder > 0 && pods.every((pod) => !pod.registered) ? 1 : 0;
  const wanted = Math.max(first, demand.waiting.device - demand.free);
  if (wanted === 0)
    remove.push(
      ...starting
        .filter((pod) => pod.phase !== "running")
        .map(({ name }) => ({ name, why: "nothing waits for it any more", failed: false })),
    );
  const create = now < pausedUntil(failing) ? 0 : Math.max(0, Math.min(wanted - starting.length, podClass.max - holding));
  return { create, remove };
}

const said = (pod: PodSeen): string => (pod.says === "" ? "" : `: ${pod.says}`);
