import type { ProfileRow } from "./regions.ts";

/** Words before a stack's own that count its instructions; the file appears beside the socket when it is told to end. */
export const callgrindArgv = (valgrind: string): string[] => [
  valgrind,
  "--tool=callgrind",
  "--vgdb=no",
  "--quiet",
  "--callgrind-out-file=${SOCKET}" + CALLGRIND_SUFFIX,
];
export const CALLGRIND_SUFFIX = ".callgrind";

/**
 * Instructions of each function by itself, from callgrind's file (manual of Valgrind, "Callgrind Format Specification"): `ob=`, `fl=` and `fn=` say where
 * the cost lines below belong, `(id)` stands for a name given once; the line after `calls=` is the callee's and is counted there.
 */
export function parseCallgrind(text: string): ProfileRow[] {
  const names = { ob: new Map<string, string>(), fn: new Map<string, string>() };
  const costs = new Map<string, ProfileRow>();
  let [object, symbol, callee] = ["", "", false];
  for (const line of text.split("\n")) {
    const [, kind, id, name] = /^(c?ob|c?fn)=(?:\((\d+)\))?(?: ?(.*))?$/.exec(line) ?? [];
    if (kind !== undefined) {
      const known = kind.endsWith("ob") ? names.ob : names.fn;
      if (id !== undefined && name !== undefined && name !== "") known.set(id, name);
      const full = (id === undefined ? name : known.get(id)) ?? "";
      if (kind === "ob") object = full.slice(full.lastIndexOf("/") + 1);
      if (kind === "fn") symbol = full;
      continue;
    }
    if (line.startsWith("calls=")) {
      callee = true;
      continue;
    }
    const cost = /^(?:[+-]?\d+|\*|0x[0-9a-f]+) (\d{1,15})$/.exec(line)?.[1];
    if (cost === undefined) continue;
    if (callee) {
      callee = false;
      continue;
    }
    const named = symbol === "" || symbol.startsWith("0x") || symbol === "???" ? null : symbol;
    const key = keyOf(object, named);
    costs.set(key, { samples: (costs.get(key)?.samples ?? 0) + Number(cost), object, symbol: named, kernel: false });
  }
  return [...costs.values()];
}

/** What `rows` have over `base`: a run with a request over one that only started. */
export function without(rows: readonly ProfileRow[], base: readonly ProfileRow[]): ProfileRow[] {
  const started = new Map(base.map((r) => [keyOf(r.object, r.symbol), r.samples]));
  return rows.map((r) => ({ ...r, samples: r.samples - (started.get(keyOf(r.object, r.symbol)) ?? 0) })).filter((r) => r.samples > 0);
}

const keyOf = (object: string, symbol: string | null): string => `${object}\n${symbol ?? ""}`;
