import { readFileSync } from "node:fs";
import { join } from "node:path";

export const DOCKER = join(import.meta.dirname, "../../deploy/docker");

/** One instruction of a Dockerfile: its word in capitals and the rest, with continued lines joined. */
export interface Instruction {
  word: string;
  rest: string;
}

export interface Stage {
  /** What follows FROM, build arguments replaced by their defaults. */
  base: string;
  name: string;
  instructions: Instruction[];
}

/** The stages of a Dockerfile. Enough of the format for ours: no heredocs, no parser directives. */
export function stagesOf(path = join(DOCKER, "Dockerfile")): Stage[] {
  const lines = readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => !/^\s*(#|$)/.test(line))
    .join("\n")
    .replaceAll(/\\\n/g, " ")
    .split("\n");
  const defaults: Record<string, string> = {};
  const stages: Stage[] = [];
  for (const line of lines) {
    const [, word = "", rest = ""] = /^\s*(\w+)\s+(.*)$/.exec(line) ?? [];
    const stage = stages.at(-1);
    if (word.toUpperCase() === "FROM") {
      const [, base = "", name = ""] = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(rest) ?? [];
      stages.push({ base: base.replaceAll(/\$\{(\w+)\}/g, (_, arg: string) => defaults[arg] ?? ""), name, instructions: [] });
    } else if (stage) stage.instructions.push({ word: word.toUpperCase(), rest });
    else if (word.toUpperCase() === "ARG") defaults[rest.split("=", 1)[0] ?? ""] = rest.slice(rest.indexOf("=") + 1);
  }
  return stages;
}
