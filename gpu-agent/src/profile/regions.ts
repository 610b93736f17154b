import type { Profile } from "@vibeserve/shared";
import { cleanText } from "../process/log-ring.ts";

/** One line of what a profiler counted: everything in it but `samples` may be the candidate's invention. */
export interface ProfileRow {
  readonly samples: number;
  /** The file that the code lies in, without its folder. */
  readonly object: string;
  /** Demangled; null where the file has no symbol for the address. */
  readonly symbol: string | null;
  readonly kernel: boolean;
}

export interface Regions {
  readonly regions: Profile["regions"];
  readonly samples: number;
  /** Share of samples in files without a symbol for them, 0 to 1. */
  readonly unnamedShare: number;
}

/** As many as the message holds; what is left out is counted in `samples` all the same. */
export const MOST_REGIONS = 60;
export const NAME_CHARS = 200;

/**
 * Rows by name, largest first. `own` is the candidate's program: the names of other files' symbols say which file. The kernel is one region, since an
 * implementer can't change what is in it.
 */
export function regionsOf(rows: readonly ProfileRow[], own: string): Regions {
  const byName = new Map<string, number>();
  let [samples, unnamed] = [0, 0];
  for (const row of rows) {
    const name = nameOf(row, own);
    byName.set(name, (byName.get(name) ?? 0) + row.samples);
    samples += row.samples;
    if (row.symbol === null && !row.kernel) unnamed += row.samples;
  }
  const regions = [...byName]
    .sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))
    .slice(0, MOST_REGIONS)
    .map(([name, n]) => ({ name, share: n / samples, samples: n }));
  return { regions, samples, unnamedShare: samples === 0 ? 0 : unnamed / samples };
}

function nameOf({ object, symbol, kernel }: ProfileRow, own: string): string {
  if (kernel) return "[kernel]";
  const name = symbol === null ? `[no symbol] ${object}` : object === own ? symbol : `${symbol} (${object})`;
  return plainName(name);
}

/** A name that a candidate gave, for a record: one line, no control characters, no more than `chars`. */
export const plainName = (name: string, chars = NAME_CHARS): string =>
  cleanText(name).replace(/\s+/g, " ").trim().slice(0, chars).toWellFormed();

/** `perf report --stdio -F sample,dso,sym -t '|'`: a line is "samples|object|[level] symbol", padded with blanks. Lines of another form are left out. */
export function parsePerfReport(text: string): ProfileRow[] {
  const rows: ProfileRow[] = [];
  for (const line of text.split("\n")) {
    const [, count, object, level, symbol] = /^ *(\d{1,12}) *\|([^|]*)\|\[(.)\] ?(.*)$/.exec(line) ?? [];
    if (count === undefined || object === undefined || symbol === undefined) continue;
    const named = symbol.trim() !== "" && !/^0x[0-9a-f]+\s*$/.test(symbol);
    rows.push({ samples: Number(count), object: object.trim(), symbol: named ? symbol.trim() : null, kernel: level === "k" });
  }
  return rows;
}
