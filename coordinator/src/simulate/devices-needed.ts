import { measures, type FleetFile } from "./fleet-file.ts";
import { planOf, type FleetPlan } from "./plan.ts";
import { FleetSimulation } from "./simulation.ts";

/** Devices of each kind with which everything ends in time, and the plan with them; or the campaign that no fleet could finish in time. */
export type DevicesNeeded = { enough: true; plan: FleetPlan } | { enough: false; why: string };

/** A device that measures can be kept busy almost always; builders that are make everybody wait. */
const FILL = { measuring: 0.97, building: 0.7 };
const ROUNDS = 25;

/**
 * Starts from the work that there is ÷ the time, and adds machines to the kinds that are late (and builders, where they are busy) until none is. The work
 * is the same whatever the fleet's size, since each job's time and failure hang on its name and the seed.
 */
export function devicesNeeded(fleet: FleetFile, seed: string, deadlineMs: number, plan: FleetPlan): DevicesNeeded {
  const stuck = plan.campaigns.find((c) => c.startMs + c.chainMs > deadlineMs);
  if (stuck)
    return {
      enough: false,
      why: `campaign ${stuck.id} alone takes ${Math.round((stuck.startMs + stuck.chainMs) / 60_000)} min from the start`,
    };
  const whole = (n: number, perAgent: number) => Math.max(1, Math.ceil(n / perAgent)) * perAgent;
  let tried = {
    ...fleet,
    kinds: fleet.kinds.map((kind) => {
      const workMs = plan.kinds.find((k) => k.kind === kind.name)?.workMs ?? 0;
      const fill = measures(fleet, kind) ? FILL.measuring : FILL.building;
      return { ...kind, count: whole(workMs / (deadlineMs * fill), kind.perAgent) };
    }),
  };
  for (let round = 0; round < ROUNDS; round++) {
    const next = planOf(new FleetSimulation(tried, seed).run());
    const late = new Set(next.campaigns.filter((c) => c.endMs > deadlineMs).map((c) => c.kind));
    if (late.size === 0) return { enough: true, plan: next };
    const slow = new Set(tried.kinds.flatMap((k) => (late.has(k.name) && k.builtOn !== undefined ? [k.builtOn] : [])));
    const busy = (name: string) => (next.kinds.find((k) => k.kind === name)?.utilisation ?? 0) > FILL.building;
    tried = {
      ...tried,
      kinds: tried.kinds.map((k) => (late.has(k.name) || (slow.has(k.name) && busy(k.name)) ? { ...k, count: more(k) } : k)),
    };
  }
  return { enough: false, why: `the fleet was still too slow after it grew ${ROUNDS} times` };
}

const more = ({ count, perAgent }: { count: number; perAgent: number }): number =>
  count + Math.max(1, Math.round((0.05 * count) / perAgent)) * perAgent;
