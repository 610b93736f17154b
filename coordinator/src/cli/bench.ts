import { existsSync } from "node:fs";
import type { BenchReport } from "../benchmarks/bench-report.ts";
import { print } from "../benchmarks/bench-report.ts";
import { benchDispatch, DISPATCH } from "../benchmarks/dispatch.ts";
import { benchMainJob } from "../benchmarks/main-job.ts";
import { childEnvironment, type Settings } from "../config.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { openOutput } from "./output.ts";
import { prepare } from "./prepare.ts";
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
    default:
      throw new CliError(EXIT.badInput, `no benchmark "${name}"; there are: main-job, dispatch`);
  }
}

async function dispatch(settings: Settings, signal: AbortSignal): Promise<BenchReport> {
  // Only what is not installed yet is fetched.
  const natsServer = existsSync(settings.natsServer) ? settings.natsServer : (await prepare(settings, openOutput(true), signal)).natsServer;
  try {
    return await benchDispatch({ ...DISPATCH, settings: { ...settings, natsServer }, signal, log: process.stderr });
  } catch (error) {
    throw signal.aborted ? new CliError(EXIT.negative, "stopped before all was measured") : error;
  }
}
