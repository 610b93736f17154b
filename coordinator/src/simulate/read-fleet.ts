import { isNode, LineCounter, parseDocument } from "yaml";
import { FleetFile, fleetProblems } from "./fleet-file.ts";

/** Its message has one line a problem: `FILE:LINE: KEY: what is wrong`. */
export class FleetFileError extends Error {
  constructor(lines: readonly string[]) {
    super(lines.join("\n"));
    this.name = "FleetFileError";
  }
}

/** Checks what a fleet's file says; `path` is for the messages. Throws FleetFileError. */
export function parseFleet(text: string, path: string): FleetFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => `${path}:${lines.linePos(offset).line}`;
  if (document.errors.length > 0) throw new FleetFileError(document.errors.map((e) => `${at(e.pos[0])}: not YAML: ${e.message}`));
  /** Where the key stands, or the nearest that there is around it. */
  const offset = (keys: readonly PropertyKey[]): number => {
    for (let n = keys.length; n > 0; n--) {
      const node: unknown = document.getIn(keys.slice(0, n), true);
      if (isNode(node) && node.range) return node.range[0];
    }
    return 0;
  };
  const shown = (keys: readonly PropertyKey[], message: string) => `${at(offset(keys))}: ${keys.map(String).join(".")}: ${message}`;
  const parsed = FleetFile.safeParse(document.toJS());
  const problems = parsed.success
    ? fleetProblems(parsed.data).map(([keys, message]) => shown(keys, message))
    : parsed.error.issues.map((issue) => shown(issue.path, issue.message));
  if (problems.length > 0) throw new FleetFileError(problems);
  if (!parsed.success) throw new Error("a fleet that does not parse has no problem");
  return parsed.data;
}
