import { existsSync } from "node:fs";
import { join } from "node:path";
import type { BenchReport } from "../benchmarks/bench-report.ts";
import { print } from "../benchmarks/bench-report.ts";
import { benchCapacity, CAPACITY } from "../benchmarks/capacity.ts";
import { benchDispatch, DISPATCH } from "../benchmarks/dispatch.ts";
import { benchFleet, FLEET } from "../benchmarks/fleet/fleet.ts";
import { benchMainJob } from "../benchmarks/main-job.ts";
import { childEnvironment, type Settings } from "../config.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { natsServerOf } from "./prepare.ts";
import { stopSignal } from "./stop-signal.ts";

/** Runs a benchmark of the product itself. Its log goes to stderr, its table and last line of JSON to stdout. */
export async function bench({ settings, output }: Invocation, name: string, options: { again?: boolean }): Promise<void> {
  const report = await measure(settings, name, options.again === true);
  if (!print(report, output)) throw new CliError(EXIT.negative, "a goal was missed");
}

async function measure(settings: Settings, name: string, again: boolean): Promise<BenchReport> {
  switch (name) {
    case "main-job":
      return benchMainJob(settings.root, { again, env: childEnvironment({}), log: process.stderr });
    case "dispatch":
      return dispatch(settings, stopSignal());
    case "agents":
      return agents(settings, stopSignal());
    case "capacity":
      return capacity(settings, stopSignal());
    case "fleet":
      return fleet(settings, stopSignal());
    default:
      throw new CliError(EXIT.badInput, `no benchmark "${name}"; there are: main-job, dispatch, agents, fleet, capacity`);
  }
}

/** Where a source checkout has what this bench is made of; an installation without tests lacks it. */
const AGENTS = join(import.meta.dirname, "../../../test/bench-agents/agents.ts");

interface AgentsBench {
  benchAgents: (options: { natsServer: string; signal: AbortSignal; log: NodeJS.WritableStream }) => Promise<BenchReport>;
}

async function agents(settings: Settings, signal: AbortSignal): Promise<BenchReport> {
  if (!existsSync(AGENTS))
    throw new CliError(
      EXIT.badInput,
      `bench agents needs a source checkout: its scripted models are among the tests, and there is no ${AGENTS}`,
    );
  const natsServer = await natsServerOf(settings, signal);
  const { benchAgents } = (await import(AGENTS)) as AgentsBench;
  return unlessStopped(signal, benchAgents({ natsServer, signal, log: process.stderr }));
}

async function dispatch(settings: Settings, signal: AbortSignal): Promise<BenchReport> {
  const natsServer = await natsServerOf(settings, signal);
  return unlessStopped(signal, benchDispatch({ ...DISPATCH, settings: { ...settings, natsServer }, signal, log: process.stderr }));
}

async function fleet(settings: Settings, signal: AbortSignal): Promise<BenchReport> {
  const natsServer = await natsServerOf(settings, signal);
  return unlessStopped(signal, benchFleet({ ...FLEET, settings: { ...settings, natsServer }, signal, log: process.stderr }));
}

async function capacity(settings: Settings, signal: AbortSignal): Promise<BenchReport> {
  const natsServer = await natsServerOf(settings, signal);
  return unlessStopped(signal, benchCapacity({ ...CAPACITY, settings: { ...settings, natsServer }, signal, log: process.stderr }));
}

async function unlessStopped(signal: AbortSignal, report: Promise<BenchReport>): Promise<BenchReport> {
  try {
    return await report;
  } catch (error) {
    throw signal.aborted ? new CliError(EXIT.negative, "stopped before all was measured") : error;
  }
}
