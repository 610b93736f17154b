import type { Command } from "commander";
import { loadSettings } from "../config.ts";
import type { Invocation } from "./invocation.ts";

/** How the verbs of a program are declared. */
export interface Verbs {
  /** One of the program's own verbs, or of another verb's. */
  verb: (name: string, description: string, parent?: Command) => Command;
  /** One that asks a coordinator. */
  remote: (name: string, description: string, parent?: Command) => Command;
  /** The action that calls `run` with the verb's arguments and then its options. Their types are what was declared: nothing checks that. */
  act: (run: (invocation: Invocation, ...given: never[]) => void | Promise<void>) => (...given: unknown[]) => Promise<void>;
}

export function verbsOf(program: Command, { output, version }: Pick<Invocation, "output" | "version">): Verbs {
  const verb: Verbs["verb"] = (name, description, parent = program) =>
    parent
      .command(name)
      .description(description)
      .exitOverride()
      .option("--data <dir>", "folder of campaigns, broker and keys (default .vibeserve)")
      .option("--json", "print one JSON object {v, kind, …}");
  return {
    verb,
    remote: (name, description, parent) =>
      verb(name, description, parent).option("--context <name>", "a coordinator elsewhere: ~/.config/vibeserve/contexts/NAME.json"),
    act:
      (run) =>
      async (...given) => {
        // Commander adds the command itself. An option that its parent has too may have been given there.
        const command = given.at(-1) as Command;
        const options = command.optsWithGlobals<{ data?: string; context?: string }>();
        const settings = loadSettings(options.data === undefined ? {} : { data: options.data });
        const all = [...given.slice(0, -2), options] as never[];
        await run({ settings, context: options.context, output, version }, ...all);
      },
  };
}
