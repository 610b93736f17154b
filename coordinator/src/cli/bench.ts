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
  const log = process.stderr;
  if (name === "main-job") return benchMainJob(settings.root, { again, env: childEnvironment({}), log });
  if (!Object.hasOwn(BENCHES, name))
    throw new CliError(EXIT.badInput, `no benchmark "${name}"; there are: main-job, ${Object.keys(BENCHES).join(", ")}`);
  const signal = stopSignal();
  const natsServer = await natsServerOf(settings, signal);
  try {
    return await BENCHES[name as keyof typeof BENCHES]({ settings: { ...settings, natsServer }, signal, log });
  } catch (error) {
    throw signal.aborted ? new CliError(EXIT.negative, "stopped before all was measured") : error;
  }
}

interface On {
  settings: Settings;
  signal: AbortSignal;
  log: NodeJS.WritableStream;
}

/** Those with a broker of their own. */
const BENCHES = {
  dispatch: (on: On) => benchDispatch({ ...DISPATCH, ...on }),
  agents,
  fleet: (on: On) => benchFleet({ ...FLEET, ...on }),
  capacity: (on: On) => benchCapacity({ ...CAPACITY, ...on }),
};

/** Where a source checkout has what this bench is made of; an installation without tests lacks it. */
const AGENTS = join(import.meta.dirname, "../../../test/bench-agents/agents.ts");

interface AgentsBench {
  benchAgents: (options: { natsServer: string; signal: AbortSignal; log: NodeJS.WritableStream }) => Promise<BenchReport>;
}

async function agents({ settings: { natsServer }, signal, log }: On): Promise<BenchReport> {
  if (!existsSync(AGENTS))
    throw new CliError(
      EXIT.badInput,
      `bench agents needs a source checkout: its scripted models are among the tests, and there is no ${AGENTS}`,
    );
  const { benchAgents } = (await import(AGENTS)) as AgentsBench;
  return benchAgents({ natsServer, signal, log });
}
