import type { Command } from "commander";
import { champions, matrix, requalify } from "./champions.ts";
import { exportBundle } from "./export.ts";
import { exportStack, type ExportStackOptions } from "./export-stack.ts";
import { findings } from "./findings.ts";
import type { Verbs } from "./verbs.ts";
import { promote, rollback } from "./promote.ts";

/** The verbs about what campaigns leave behind: findings, champions, and where those are served. */
export function learningVerbs({ verb, remote, act }: Verbs): void {
  remote("champions", "every champion, whether what it was proven with has changed since, and which channels serve it").action(
    act(champions),
  );
  remote("matrix", "each champion on each target, and the fewest stacks that keep most of the gain")
    .option("--measure", "submit trials for what is unknown")
    .option("--keep <share>", "share of the best gain, 0 to 1", "0.95")
    .action(act(matrix));
  remote("requalify [champion]", "test a champion again after something changed; what is not confirmed is rolled back")
    .option("--all", "the newest champion of every target")
    .option("--because <cause>", "driver, toolchain, model, workload or schedule (default: what changed)")
    .action(act(requalify));
  const channel = (command: Command): Command =>
    command
      .option("--channel <name>", "a file that a serving platform watches: <data>/channels/NAME.json", "stable")
      .option("--reason <text>", "why, for the channel's history");
  channel(verb("promote <champion>", "make a champion what a channel serves"))
    .option("--export <dir>", "folder that export --to wrote, for whoever serves it")
    .option("--force", "even where something speaks against it, which is written down")
    .action(act(promote));
  channel(verb("rollback", "take a channel back to what it served before"))
    .option("--to <champion>", "or to this champion")
    .action(act(rollback));
  remote("findings", "what ended campaigns showed, each with its scope, interval, weight and what contradicts it")
    .option("--target <target>", "weigh them for a target: its file, or the name of one that campaigns were run for")
    .action(act(findings));
  remote(
    "export [campaign]",
    "write a campaign's events, report and git bundle to a folder, or with --to its champion (default: the newest)",
  )
    .option("--out <dir>", "where to (default <data>/export/<campaign>)")
    .option("--to <dir>", "write the champion instead: source, build, scripts, Dockerfile, evidence; what runs without VibeServe")
    .option("--no-build", "with --to: do not build it")
    .option("--no-setup", "with --to: use what is installed; fetch nothing")
    .action(
      act((invocation, id: string | undefined, { out, to, ...options }: Omit<ExportStackOptions, "to"> & { out?: string; to?: string }) =>
        to === undefined ? exportBundle(invocation, id, out) : exportStack(invocation, id, { ...options, to }),
      ),
    );
}
