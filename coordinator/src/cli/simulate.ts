import { devicesNeeded } from "../simulate/devices-needed.ts";
import { neededText, planText } from "../simulate/plan-text.ts";
import { planOf } from "../simulate/plan.ts";
import { FleetFileError, readFleetFile } from "../simulate/read-fleet.ts";
import { FleetSimulation } from "../simulate/simulation.ts";
import { parseDuration } from "./duration.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

export interface SimulateOptions {
  seed?: string;
  deadline?: string;
}

/** Plays a fleet and its campaigns in virtual time and prints the plan. Ends with 1 where a bound is missed. */
export function simulate({ output }: Invocation, path: string, options: SimulateOptions): void {
  const seed = options.seed ?? "1";
  const seconds = options.deadline === undefined ? null : parseDuration(options.deadline);
  if (options.deadline !== undefined && seconds === null)
    throw new CliError(EXIT.badInput, `--deadline "${options.deadline}" is not a time such as 45m or 12h`);
  const deadlineMs = seconds === null ? null : 1_000 * seconds;
  try {
    const fleet = readFleetFile(path);
    const plan = planOf(new FleetSimulation(fleet, seed).run());
    const needed = deadlineMs === null ? null : devicesNeeded(fleet, seed, deadlineMs, plan);
    const more = needed === null ? [] : [needed.enough ? neededText(needed.plan, deadlineMs ?? 0) : `no fleet ends in time: ${needed.why}`];
    output.answer({ v: 1, kind: "fleet.plan", ...plan, ...(needed ? { needed } : {}) }, [planText(plan), ...more].join("\n\n"));
    const missed = plan.bounds.filter((b) => !b.ok);
    if (missed.length > 0) throw new CliError(EXIT.negative, `the plan misses ${missed.map((b) => b.what).join(", ")}`);
  } catch (error) {
    if (error instanceof FleetFileError) throw new CliError(EXIT.badInput, error.message);
    throw error;
  }
}
