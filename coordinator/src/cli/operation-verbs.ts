import type { Command } from "commander";
import type { Invocation } from "./invocation.ts";
import type { CommonOptions } from "./program.ts";
import { smokeTest, type SmokeOptions } from "./smoke.ts";
import { stopSignal } from "./stop-signal.ts";
import { upgrade, type UpgradeOptions } from "./upgrade.ts";

interface Verbs {
  verb: (name: string, description: string) => Command;
  remote: (name: string, description: string) => Command;
  invoke: (options: CommonOptions) => Invocation;
}

/** The verbs of whoever runs an installation. */
export function operationVerbs({ remote, invoke }: Verbs): void {
  remote("smoke", "a simulated agent joins, a campaign of at most 30 s runs from end to end, its report is checked, the agent is put out")
    .option("--own", "against a coordinator of its own, which goes when it is over")
    .option("--seed <stack>", "the stack that it starts from, as the coordinator has it", "stacks/cpu")
    .option("--limit <time>", "give up after this", "30s")
    .action(async (options: CommonOptions & SmokeOptions) => smokeTest(invoke(options), options, stopSignal()));
  remote("upgrade", "may this release take over the data folder, the coordinator and its agents? ends with 1 where it must not")
    .option("--check", "say so and change nothing (the only thing that it does)")
    .action(async (options: CommonOptions & UpgradeOptions) => upgrade(invoke(options), options));
}
