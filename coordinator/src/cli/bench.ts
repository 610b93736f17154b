import { childEnvironment } from "../config.ts";
import { print } from "../benchmarks/bench-report.ts";
import { benchMainJob } from "../benchmarks/main-job.ts";
import { CliError, EXIT } from "./exit.ts";

/** Runs a benchmark of the product itself. Its log goes to stderr, its table and last line of JSON to stdout. */
export async function bench(root: string, name: string, options: { again?: boolean }): Promise<void> {
  if (name !== "main-job") throw new CliError(EXIT.badInput, `no benchmark "${name}"; there is: main-job`);
  const report = await benchMainJob(root, { again: options.again === true, env: childEnvironment({}), log: process.stderr });
  if (print(report, process.stdout) !== 0) throw new CliError(EXIT.negative, "a goal was missed");
}
