import { Target, targetProblems } from "@vibeserve/shared";
import { isCollection, isMap, isNode, isScalar, LineCounter, parseDocument, type Document } from "yaml";
import { z } from "zod";
import { CliError, EXIT } from "./exit.ts";
import { readGiven } from "./given-file.ts";

/** What is wrong with a target file, and where. */
export interface TargetProblem {
  line: number;
  /** Dotted path of the key; "" for the file as a whole. */
  key: string;
  message: string;
}

/** Reads and checks a target. Throws CliError (bad input) with one line a problem: `FILE:LINE: KEY: what is wrong; allowed: …`. */
export function readTargetFile(path: string): Target {
  const parsed = parseTarget(readGiven(path, "targets/cpu/chat.yaml"));
  if (!Array.isArray(parsed)) return parsed;
  throw new CliError(
    EXIT.badInput,
    parsed.map(({ line, key, message }) => `${path}:${line}: ${key === "" ? "" : `${key}: `}${message}`).join("\n"),
  );
}

/** The target, or its problems in the order of their lines. */
export function parseTarget(text: string): Target | TargetProblem[] {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0)
    return document.errors.map((e) => ({ line: lines.linePos(e.pos[0]).line, key: "", message: `not YAML: ${e.message}` }));
  const raw: unknown = document.toJS();
  const lineOf = (keys: readonly PropertyKey[]) => lines.linePos(offsetOf(document, keys)).line;
  const parsed = Target.safeParse(raw, { error: allowedKeys });
  const problems = parsed.success
    ? targetProblems(parsed.data).map(([keys, message]) => ({ line: lineOf(keys), key: keys.join("."), message }))
    : parsed.error.issues.flatMap((issue) =>
        explain(issue, raw).map(({ keys, message }) => ({ line: lineOf(keys), key: keys.map(String).join("."), message })),
      );
  if (problems.length > 0) return problems.sort((a, b) => a.line - b.line);
  if (!parsed.success) throw new Error("a target that does not parse has no problem");
  return parsed.data;
}

/** The line of a key in a target's text; of its nearest parent where it is missing. */
export function lineOfKey(text: string, keys: readonly string[]): number {
  const lines = new LineCounter();
  return lines.linePos(offsetOf(parseDocument(text, { lineCounter: lines }), keys)).line;
}

function explain(issue: z.core.$ZodIssue, raw: unknown): { keys: readonly PropertyKey[]; message: string }[] {
  const given = at(raw, issue.path);
  const shown = given === undefined ? "" : `${JSON.stringify(given)} `;
  const one = (message: string) => [{ keys: issue.path, message }];
  switch (issue.code) {
    case "unrecognized_keys":
      return issue.keys.map((key) => ({ keys: [...issue.path, key], message: issue.message }));
    // Of a union the path ends in the discriminator, such as workload.arrival.process.
    case "invalid_value":
    case "invalid_union": {
      const allowed = issue.code === "invalid_value" ? issue.values : "options" in issue ? issue.options : [];
      return one(`${given === undefined ? "is missing" : `${shown}is not allowed`}; allowed: ${allowed.map(String).join(", ")}`);
    }
    case "invalid_type":
      return one(given === undefined ? `is missing; it must be ${article(issue.expected)}` : `${shown}is not ${article(issue.expected)}`);
    case "too_small":
      return one(`${shown}is too small; allowed: ${issue.inclusive ? "at least" : "more than"} ${issue.minimum}`);
    case "too_big":
      return one(`${shown}is too big; allowed: ${issue.inclusive ? "at most" : "less than"} ${issue.maximum}`);
    default:
      return one(`${shown}${issue.message}`);
  }
}

const article = (type: string) =>
  `${/^[aeio]/.test(type) ? "an" : "a"} ${type === "int" ? "whole number" : type}`.replace("an whole", "a whole");

function at(value: unknown, keys: readonly PropertyKey[]): unknown {
  return keys.reduce<unknown>(
    (v, key) => (typeof v === "object" && v !== null ? (v as Record<PropertyKey, unknown>)[key] : undefined),
    value,
  );
}

/** Only the object that refuses a key knows which it takes; every other message is made of the issue. */
const allowedKeys: z.core.$ZodErrorMap = ({ code, inst }) =>
  code === "unrecognized_keys" && inst instanceof z.ZodObject ? `unknown key; allowed: ${Object.keys(inst.shape).join(", ")}` : undefined;

/** Where a key stands in the file; for a key that is missing, where the nearest one above it does. */
function offsetOf(document: Document.Parsed, keys: readonly PropertyKey[]): number {
  for (let n = keys.length; n > 0; n--) {
    const parent: unknown = n === 1 ? document.contents : document.getIn(keys.slice(0, n - 1), true);
    const key = keys[n - 1];
    const node: unknown = isMap(parent)
      ? parent.items.find((pair) => isScalar(pair.key) && pair.key.value === key)?.key
      : isCollection(parent) && parent.get(key, true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return document.contents?.range[0] ?? 0;
}
