import { childEnvironment } from "../config.ts";
import { print } from "../benchmarks/bench-report.ts";
import { benchMainJob } from "../benchmarks/main-job.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** Runs a benchmark of the product itself. Its log goes to stderr, its table and last line of JSON to stdout. */
export async function bench({ settings, output }: Invocation, name: string, options: { again?: boolean }): Promise<void> {
  if (name !== "main-job") throw new CliError(EXIT.badInput, `no benchmark "${name}"; there is: main-job`);
  const report = await benchMainJob(settings.root, { again: options.again === true, env: childEnvironment({}), log: process.stderr });
  if (!print(report, output)) throw new CliError(EXIT.negative, "a goal was missed");
}
