import type { Rng } from "@vibeserve/shared";
import { pick, word } from "./words.ts";

interface Names {
  readonly fn: string;
  readonly data: string;
  readonly one: string;
  readonly limit: number;
}

const camel = (a: string, b: string): string => a + b.charAt(0).toUpperCase() + b.slice(1);

const PYTHON: readonly ((n: Names) => string)[] = [
  (n) =>
    `def ${n.fn}(${n.data}, limit=${n.limit}):\n    result = []\n    for ${n.one} in ${n.data}:\n        if ${n.one} is not None and len(result) < limit:\n            result.append(${n.one})\n    return result\n`,
  (n) =>
    `def ${n.fn}(${n.data}):\n    counts = {}\n    for ${n.one} in ${n.data}:\n        counts[${n.one}] = counts.get(${n.one}, 0) + 1\n    return sorted(counts.items(), key=lambda pair: -pair[1])[:${n.limit}]\n`,
  (n) =>
    `def ${n.fn}(${n.data}, target):\n    low, high = 0, len(${n.data}) - 1\n    while low <= high:\n        middle = (low + high) // 2\n        if ${n.data}[middle] == target:\n            return middle\n        if ${n.data}[middle] < target:\n            low = middle + 1\n        else:\n            high = middle - 1\n    return -1\n`,
  (n) =>
    `class ${n.fn.replace(/(^|_)(.)/g, (_m, _u, c: string) => c.toUpperCase())}:\n    def __init__(self, ${n.data}):\n        self.${n.data} = ${n.data}\n        self.total = ${n.limit}\n\n    def add(self, ${n.one}):\n        self.${n.data}.append(${n.one})\n        self.total += 1\n`,
];
const JAVASCRIPT: readonly ((n: Names) => string)[] = [
  (n) =>
    `function ${n.fn}(${n.data}) {\n  const seen = new Set();\n  return ${n.data}.filter((${n.one}) => {\n    if (seen.has(${n.one}.id) || seen.size >= ${n.limit}) return false;\n    seen.add(${n.one}.id);\n    return true;\n  });\n}\n`,
  (n) =>
    `async function ${n.fn}(${n.data}) {\n  const results = [];\n  for (const ${n.one} of ${n.data}) {\n    const response = await fetch("/api/" + ${n.one});\n    if (response.status === ${n.limit}) continue;\n    results.push(await response.json());\n  }\n  return results;\n}\n`,
];
const C: readonly ((n: Names) => string)[] = [
  (n) =>
    `int ${n.fn}(const int *${n.data}, size_t n) {\n    int best = ${n.limit};\n    for (size_t i = 0; i < n; i++) {\n        if (${n.data}[i] > best) best = ${n.data}[i];\n    }\n    return best;\n}\n`,
];

export type Language = "Python" | "JavaScript" | "C";

/** A small function of random shape and names, 40 to 110 tokens long. */
export function snippet(rng: Rng, language: Language): string {
  const [verb, noun] = [word(rng, "verbCode"), word(rng, "nounCode")];
  const fn = language === "JavaScript" ? camel(verb, noun) : `${verb}_${noun}`;
  const names = { fn, data: noun, one: pick(rng, ["item", "entry", "value", "x", "element", "row"]), limit: 2 + rng.int(500) };
  return pick(rng, language === "Python" ? PYTHON : language === "JavaScript" ? JAVASCRIPT : C)(names);
}

export function language(rng: Rng): Language {
  return pick(rng, ["Python", "Python", "JavaScript", "C"] as const);
}
