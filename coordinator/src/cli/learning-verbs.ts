import type { Command } from "commander";
import { exportBundle } from "./export.ts";
import { exportStack, type ExportStackOptions } from "./export-stack.ts";
import { findings } from "./findings.ts";
import type { Invocation } from "./invocation.ts";
import type { CommonOptions } from "./program.ts";

interface Verbs {
  verb: (name: string, description: string) => Command;
  remote: (name: string, description: string) => Command;
  invoke: (options: CommonOptions) => Invocation;
}

/** The verbs about what campaigns leave behind: findings, champions, and where those are served. */
export function learningVerbs({ remote, invoke }: Verbs): void {
  remote("findings", "what ended campaigns showed, each with its scope, interval, weight and what contradicts it")
    .option("--target <target>", "weigh them for a target: its file, or the name of one that campaigns were run for")
    .action(async (options: CommonOptions & { target?: string }) => findings(invoke(options), options));
  remote(
    "export [campaign]",
    "write a campaign's events, report and git bundle to a folder, or with --to its champion (default: the newest)",
  )
    .option("--out <dir>", "where to (default <data>/export/<campaign>)")
    .option("--to <dir>", "write the champion instead: source, build, scripts, Dockerfile, evidence; what runs without VibeServe")
    .option("--no-build", "with --to: do not build it")
    .option("--no-setup", "with --to: use what is installed; fetch nothing")
    .action(async (id: string | undefined, options: CommonOptions & Omit<ExportStackOptions, "to"> & { out?: string; to?: string }) =>
      options.to === undefined
        ? exportBundle(invoke(options), id, options.out)
        : exportStack(invoke(options), id, { ...options, to: options.to }),
    );
}
