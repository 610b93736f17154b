import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { CliError, EXIT } from "./exit.ts";

const root = join(import.meta.dirname, "../../..");

/** The text of a file that a person named; `example`: one of its kind that ships. Throws CliError (bad input) with the path and what is wrong. */
export function readGiven(path: string, example?: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const near = relative(process.cwd(), join(root, example ?? ""));
    const ships = example === undefined ? "" : `; one that ships is ${near.startsWith("..") ? join(root, example) : near}`;
    const why = code === "ENOENT" ? `there is no such file${ships}` : code === "EISDIR" ? `it is a folder, not a file${ships}` : message;
    throw new CliError(EXIT.badInput, `${path}: ${why}`);
  }
}
