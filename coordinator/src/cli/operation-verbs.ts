import { backupData, restoreData } from "./backup.ts";
import { doctor } from "./doctor.ts";
import type { Verbs } from "./verbs.ts";
import { smokeTest } from "./smoke.ts";
import { upgrade } from "./upgrade.ts";

/** The verbs of whoever runs an installation. */
export function operationVerbs({ verb, remote, act }: Verbs): void {
  verb(
    "doctor",
    "look at what an installation stands on, and say for each failure what to do: a coordinator's machine, or with --node an agent's",
  )
    .option("--node", "the data folder is an agent's")
    .option("--online", "also ask what is outside the installation: a provider of models")
    .action(act(doctor));
  verb("backup", "everything of a data folder in one tar file, while its coordinator works or while none does")
    .requiredOption("--to <file>", "where to: a file that does not exist yet, or a folder (FOLDER/) in which it is named by its moment")
    .option("--with-keys", "the coordinator's keys and authority too: who can read the file is the coordinator")
    .action(act(backupData));
  verb("restore <file>", "make a data folder of a backup; it must be empty. No lease of before survives it").action(act(restoreData));
  remote("smoke", "a simulated agent joins, a campaign of at most 30 s runs from end to end, its report is checked, the agent is put out")
    .option("--own", "against a coordinator of its own, which goes when it is over")
    .option("--seed <stack>", "the stack that it starts from, as the coordinator has it", "stacks/cpu")
    .option("--limit <time>", "give up after this", "30s")
    .action(act(smokeTest));
  remote("upgrade", "may this release take over the data folder, the coordinator and its agents? ends with 1 where it must not")
    .option("--check", "say so and change nothing (the only thing that it does)")
    .option("--backup-to <file>", "take a backup first, where it may: a new file, or a folder (FOLDER/)")
    .option("--with-keys", "with --backup-to: the coordinator's keys too, without which agents join again after a restore")
    .action(act(upgrade));
}
