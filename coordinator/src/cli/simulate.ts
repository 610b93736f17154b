import { MAX_DEVICES } from "@vibeserve/shared";
import { devicesNeeded } from "../simulate/devices-needed.ts";
import type { FleetFile } from "../simulate/fleet-file.ts";
import { neededText, planText, protocolText } from "../simulate/plan-text.ts";
import { planOf, type FleetPlan } from "../simulate/plan.ts";
import { FleetFileError, parseFleet } from "../simulate/read-fleet.ts";
import { FleetSimulation } from "../simulate/simulation.ts";
import { durationOf } from "./duration.ts";
import { CliError, EXIT } from "./exit.ts";
import { readGiven } from "./given-file.ts";
import type { Invocation } from "./invocation.ts";
import { natsServerOf } from "./prepare.ts";
import { stopSignal } from "./stop-signal.ts";

export interface SimulateOptions {
  seed?: string;
  deadline?: string;
  protocol?: boolean;
  speed?: string;
}

/** A simulated minute takes a second: jobs of minutes are still a hundred times what the real path adds. */
const SPEED = 60;

/** Plays a fleet and its campaigns, in virtual time or over the protocol, and prints the plan. Ends with 1 where a bound is missed or an invariant is broken. */
export async function simulate(invocation: Invocation, path: string, options: SimulateOptions): Promise<void> {
  const { output } = invocation;
  const seed = options.seed ?? "1";
  const seconds = options.deadline === undefined ? null : durationOf("--deadline", options.deadline);
  if (options.protocol === true && seconds !== null)
    throw new CliError(EXIT.badInput, "--deadline needs virtual time: leave --protocol out");
  const deadlineMs = seconds === null ? null : 1_000 * seconds;
  const text = readGiven(path, "targets/fleets/mixed.yaml");
  let fleet: FleetFile;
  try {
    fleet = parseFleet(text, path);
  } catch (error) {
    if (error instanceof FleetFileError) throw new CliError(EXIT.badInput, error.message);
    throw error;
  }
  if (options.protocol === true) {
    await overProtocol(invocation, fleet, seed, options.speed);
    return;
  }
  const plan = planOf(new FleetSimulation(fleet, seed).run());
  const needed = deadlineMs === null ? null : devicesNeeded(fleet, seed, deadlineMs, plan);
  const more = needed === null ? [] : [needed.enough ? neededText(needed.plan, deadlineMs ?? 0) : `no fleet ends in time: ${needed.why}`];
  output.answer({ v: 1, kind: "fleet.plan", ...plan, ...(needed ? { needed } : {}) }, [planText(plan), ...more].join("\n\n"));
  failIfMissed(plan);
}

async function overProtocol({ settings, output, version }: Invocation, fleet: FleetFile, seed: string, given?: string): Promise<void> {
  const speed = given === undefined ? SPEED : Number(given);
  if (!(speed > 0)) throw new CliError(EXIT.badInput, `--speed "${given ?? ""}" is not a positive number`);
  const many = fleet.campaigns.find((c) => c.devices > MAX_DEVICES);
  if (many)
    throw new CliError(
      EXIT.badInput,
      `campaign ${many.name} takes ${many.devices} devices at once: a job's are ${MAX_DEVICES} at the most`,
    );
  const { playOverProtocol } = await import("../simulate/protocol-run.ts");
  const signal = stopSignal();
  const natsServer = await natsServerOf(settings, signal);
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const run = await playOverProtocol({ settings: { ...settings, natsServer }, version, fleet, seed, speed, signal, say }).catch(
    (error: unknown) => {
      throw signal.aborted ? new CliError(EXIT.negative, "stopped before the fleet was done") : error;
    },
  );
  const { plan, ...path } = run;
  output.answer({ v: 1, kind: "fleet.plan", ...plan, protocol: path }, `${planText(plan)}\n\n${protocolText(run)}`);
  if (run.breaches.length > 0) throw new CliError(EXIT.negative, `${run.breaches.length} breaches of I3, I5 or I8`);
  failIfMissed(plan);
}

function failIfMissed({ bounds }: FleetPlan): void {
  const missed = bounds.filter((b) => !b.ok);
  if (missed.length > 0) throw new CliError(EXIT.negative, `the plan misses ${missed.map((b) => b.what).join(", ")}`);
}
