import { randomInt } from "node:crypto";
import { FAIRNESS_LIMIT, IDLE_LIMIT, MAKESPAN_LIMIT, planOf } from "../../simulate/plan.ts";
import { fleetOf } from "../../simulate/random-fleet.ts";
import { FleetSimulation } from "../../simulate/simulation.ts";
import { row, type Row } from "../bench-report.ts";
import type { FleetSite } from "./fleet.ts";

/**
 * Fleets of three kinds of devices at the least, with dependent experiments, a tenth of the jobs failing and unequal times, each drawn by a seed: played in virtual
 * time by the scheduler and the campaigns' own machine. The floor is the lower bound that no schedule could beat.
 */
export async function simulated({ fleets, log }: FleetSite): Promise<Row[]> {
  const seeds = Array.from({ length: fleets }, () => String(randomInt(1_000_000)));
  log.write(`fleet: simulated fleets of seeds ${seeds.join(", ")}\n`);
  const plans = seeds.map((seed) => planOf(new FleetSimulation(fleetOf(seed), seed).run()));
  const kinds = plans.flatMap((plan) => plan.kinds);
  const worst = (values: readonly (number | null)[]) => Math.max(...values.map((v) => v ?? 0));
  const what = `simulated fleets (seeds ${seeds.join(", ")}), worst`;
  return [
    row(`${what}: makespan / lower bound`, worst(plans.map((p) => p.makespanMs / p.lowerBoundMs)), "×", `<= ${MAKESPAN_LIMIT}`),
    row(`${what}: device idle share with a backlog`, 100 * worst(kinds.map((k) => k.idleWithBacklog)), "%", `<= ${100 * IDLE_LIMIT}`),
    row(`${what}: most / least device-time among equals`, worst(kinds.map((k) => k.fairness)), "×", `<= ${FAIRNESS_LIMIT}`),
  ];
}
