import type { Command } from "commander";
import { backupData, restoreData, type BackupCommandOptions } from "./backup.ts";
import { doctor, type DoctorOptions } from "./doctor.ts";
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
export function operationVerbs({ verb, remote, invoke }: Verbs): void {
  verb(
    "doctor",
    "look at what an installation stands on, and say for each failure what to do: a coordinator's machine, or with --node an agent's",
  )
    .option("--node", "the data folder is an agent's")
    .option("--online", "also ask what is outside the installation: a provider of models")
    .action(async (options: CommonOptions & DoctorOptions) => doctor(invoke(options), options));
  verb("backup", "everything of a data folder in one tar file, while its coordinator works or while none does")
    .requiredOption("--to <file>", "where to; it must not exist yet")
    .option("--with-keys", "the coordinator's keys and authority too: who can read the file is the coordinator")
    .action(async (options: CommonOptions & BackupCommandOptions) => backupData(invoke(options), options));
  verb("restore <file>", "make a data folder of a backup; it must be empty. No lease of before survives it").action(
    async (file: string, options: CommonOptions) => restoreData(invoke(options), file),
  );
  remote("smoke", "a simulated agent joins, a campaign of at most 30 s runs from end to end, its report is checked, the agent is put out")
    .option("--own", "against a coordinator of its own, which goes when it is over")
    .option("--seed <stack>", "the stack that it starts from, as the coordinator has it", "stacks/cpu")
    .option("--limit <time>", "give up after this", "30s")
    .action(async (options: CommonOptions & SmokeOptions) => smokeTest(invoke(options), options, stopSignal()));
  remote("upgrade", "may this release take over the data folder, the coordinator and its agents? ends with 1 where it must not")
    .option("--check", "say so and change nothing (the only thing that it does)")
    .option("--backup-to <file>", "take a backup first, where it may")
    .option("--with-keys", "with --backup-to: the coordinator's keys too, without which agents join again after a restore")
    .action(async (options: CommonOptions & UpgradeOptions) => upgrade(invoke(options), options));
}
