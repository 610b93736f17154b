import { isRecord, parseJson, type TurnUsage } from "@vibeserve/shared";
import type { Recipe, Sum } from "./recipe.ts";

/** What a CLI says of itself. Untrusted: what counts is what the proxy metered. */
export interface Printed {
  usage: TurnUsage | null;
  costUsd: number | null;
  /** At most 16 KiB, without control characters but line ends and tabs; "" where there is none. */
  finalText: string;
}

const TEXT_CHARACTERS = 16_384;

/** Terminal escapes and other control characters taken out. */
export const clean = (text: string): string =>
  text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "");

/** Reads a CLI's stdout as its recipe says; what has another shape is left out, never an error. */
export function readPrinted(output: Recipe["output"], stdout: string): Printed {
  const objects = output.format === "json" ? [lastObject(stdout)] : stdout.split("\n").map(parseJson);
  const seen = objects.filter(isRecord);
  const total = (sum: Sum | null): number | null => (sum === null ? 0 : add(sum, seen));
  const [input, out] = [total(output.usage.input), total(output.usage.output)];
  const tokens = (n: number | null): number => Math.max(0, Math.round(n ?? 0));
  const usage =
    input === null || out === null
      ? null
      : {
          input: tokens(input),
          output: tokens(out),
          cacheRead: tokens(total(output.usage.cacheRead)),
          cacheWrite: tokens(total(output.usage.cacheWrite)),
        };
  const texts = seen.filter((o) => holds(output.text.when, o)).flatMap((o) => output.text.at.flatMap((path) => at(o, path)));
  const text = texts.filter((t) => typeof t === "string").at(-1) ?? "";
  const costUsd = output.costUsd === null ? null : add(output.costUsd, seen);
  return { usage, costUsd: costUsd !== null && costUsd >= 0 ? costUsd : null, finalText: clean(text).slice(0, TEXT_CHARACTERS) };
}

/** null: nothing matches. */
function add(sum: Sum, objects: readonly unknown[]): number | null {
  const chosen = objects.filter((o) => holds(sum.when, o));
  const numbers = (paths: readonly string[]) =>
    chosen.flatMap((o) => paths.flatMap((path) => at(o, path))).filter((n): n is number => typeof n === "number" && Number.isFinite(n));
  const found = numbers(sum.at);
  const plus = (a: number, b: number): number => a + b;
  return found.length === 0 ? null : found.reduce(plus, 0) - numbers(sum.minus).reduce(plus, 0);
}

const holds = (when: Readonly<Record<string, string>>, o: unknown): boolean =>
  Object.entries(when).every(([path, value]) => at(o, path).includes(value));

/** Every value at the path; "*" stands for all members. */
function at(value: unknown, path: string): unknown[] {
  return path.split(".").reduce<unknown[]>(
    (values, name) =>
      values.flatMap((v) => {
        if (!isRecord(v)) return [];
        if (name === "*") return Object.values(v);
        return Object.hasOwn(v, name) ? [v[name]] : [];
      }),
    [value],
  );
}

/** The whole text, or else what begins at the last line that opens an object: CLIs print warnings before it. */
function lastObject(text: string): unknown {
  const whole = parseJson(text);
  if (isRecord(whole)) return whole;
  for (let from = text.lastIndexOf("\n{"); from >= 0; from = from === 0 ? -1 : text.lastIndexOf("\n{", from - 1)) {
    const object = parseJson(text.slice(from));
    if (isRecord(object)) return object;
  }
  return null;
}
