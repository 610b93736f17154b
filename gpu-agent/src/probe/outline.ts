/**
 * What nvidia-smi -q, rocminfo and system_profiler print: "Key : value" lines, their depth by indentation. One reader for the three, and no XML: the
 * tools' XML and JSON say no more, and change their names as often.
 */
export interface Outline {
  readonly key: string;
  /** Null where the line is only a heading. */
  readonly value: string | null;
  readonly children: readonly Outline[];
}

interface Node extends Outline {
  readonly indent: number;
  readonly children: Node[];
}

/** Reads an outline. A line without a colon is a heading; what is no line of an outline (rules, empty lines) is left out. */
export function parseOutline(text: string): Outline[] {
  const root: Node = { key: "", value: null, children: [], indent: -1 };
  const open: Node[] = [root];
  for (const line of text.split("\n")) {
    if (/^\s*([=*+|-].*)?$/.test(line)) continue;
    const indent = line.length - line.trimStart().length;
    // "Key : value" and "Key: value"; a time or a bus id in the value, and "GPU 00000000:18:00.0", hold colons without a space after them.
    const [, key = line.trim(), value] = /^\s*(.*?)\s*:+(?:\s+(.*))?$/.exec(line) ?? [];
    while ((open.at(-1)?.indent ?? -1) >= indent && open.length > 1) open.pop();
    const node: Node = { key, value: value?.trim() ? value.trim() : null, children: [], indent };
    open.at(-1)?.children.push(node);
    open.push(node);
  }
  return root.children;
}

/** The value at a path of keys, the first that matches at each step; null where there is none, where the tool says so, and where the device did not answer. */
export function valueAt(outline: readonly Outline[], ...path: string[]): string | null {
  let level = outline;
  let found: Outline | undefined;
  for (const key of path) {
    found = level.find((o) => o.key === key);
    level = found?.children ?? [];
  }
  const value = found?.value ?? null;
  return value === null || isAbsent(value) || isBroken(value) ? null : value;
}

/** The number that a value begins with, if it is in `unit`: "81559 MiB" → 81559. Null for anything else: a number is never made up. */
export function quantity(value: string | null, unit: string): number | null {
  const [, digits, given] = /^(-?\d+(?:\.\d+)?)\s*(\S.*)?$/.exec(value ?? "") ?? [];
  if (digits === undefined || (given ?? "") !== unit) return null;
  return Number(digits);
}

/** Words by which the tools say "not here", which is no fault: a card without ECC, a user without the right to read. */
export const isAbsent = (value: string): boolean => /^\[?(n\/a|not supported|not available|insufficient permissions?)\]?$/i.test(value);
/** Words by which they say that the device did not answer. */
const isBroken = (value: string): boolean => /^\[?(err!|unknown error|gpu is lost|gpu requires reset)\]?$/i.test(value);

/** Keys of all lines whose value says that the device did not answer, as "A › B". */
export function brokenKeys(outline: readonly Outline[], above: readonly string[] = []): string[] {
  return outline.flatMap((o) => {
    const path = [...above, o.key];
    return [...(o.value !== null && isBroken(o.value) ? [path.join(" › ")] : []), ...brokenKeys(o.children, path)];
  });
}
