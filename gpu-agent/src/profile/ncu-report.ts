import type { Profile } from "@vibeserve/shared";
import { firstWords } from "../device/vendor-tool.ts";
import { MOST_REGIONS, NAME_CHARS, plainName } from "./regions.ts";

/** One launch of a kernel as ncu saw it, alone on the device. What ncu did not tell is null. */
export interface Launch {
  /** Demangled. The candidate's own words. */
  readonly kernel: string;
  readonly ns: number;
  /** Of the peak of the device's memory, of its busiest way to compute, and of the warps that an SM can hold, 0 to 100. */
  readonly memoryPct: number | null;
  readonly computePct: number | null;
  readonly warpsPct: number | null;
  readonly registers: number | null;
}

export interface NcuReport {
  readonly launches: readonly Launch[];
  /** What ncu said against itself, one line; "" for nothing. */
  readonly trouble: string;
}

/** A kernel's time, which every set of metrics holds. */
export const TIME = "gpu__time_duration.sum";
const ofPeak = (name: string, of = "elapsed"): string => `${name}.avg.pct_of_peak_sustained_${of}`;
const [MEMORY, COMPUTE] = [ofPeak("gpu__dram_throughput"), ofPeak("sm__throughput")];
/** Single counters of which the two above are the greatest. On the one device seen they gave the same numbers, and a kernel need not be run several times for them. */
const [DRAM, ISSUE, TENSOR] = [ofPeak("dram__cycles_active"), ofPeak("sm__issue_active"), ofPeak("sm__pipe_tensor_cycles_active")];
const [WARPS, REGISTERS] = [ofPeak("sm__warps_active", "active"), "launch__registers_per_thread"];
export const FEW_COUNTERS = [TIME, DRAM, ISSUE, TENSOR, WARPS, REGISTERS];

/** More launches than are ever asked for, and more characters than a line of them has. */
const [MOST_ROWS, LINE_CHARS] = [10_000, 64 * 2 ** 10];

const NS: Readonly<Record<string, number>> = { ns: 1, nsecond: 1, us: 1e3, usecond: 1e3, ms: 1e6, msecond: 1e6, s: 1e9, second: 1e9 };

/**
 * What `ncu --csv --page raw` printed: its own lines ("==ERROR== …"), the names of columns, their units, a line a launch. The columns are what was asked for and
 * more; they are found by name. The file was in the candidate's hands: a line of another form is left out.
 */
export function parseNcu(text: string): NcuReport {
  // One long line would be millions of cells, millions of short ones as many launches: either takes the agent's memory, or its time.
  const lines = text.split("\n").filter((line) => line.length <= LINE_CHARS);
  const trouble = lines.filter((line) => line.startsWith("==ERROR==")).map((line) => line.slice("==ERROR==".length));
  const at = lines.findIndex((line) => line.startsWith('"ID",'));
  const columns = new Map(cellsOf(lines[at] ?? "").map((name, i) => [name, i]));
  const [units = [], ...rows] = (at < 0 ? [] : lines.slice(at + 1, at + 1 + MOST_ROWS))
    .map(cellsOf)
    .filter((cells) => cells.length === columns.size);
  const number = (row: readonly string[], name: string): number | null => {
    const cell = row[columns.get(name) ?? -1] ?? "";
    return /^[\d,]{1,20}(\.\d{1,9})?$/.test(cell) ? Number(cell.replaceAll(",", "")) : null;
  };
  const unit = NS[units[columns.get(TIME) ?? -1] ?? ""];
  const launches = rows.flatMap((row): Launch[] => {
    const [kernel, time] = [row[columns.get("Kernel Name") ?? -1], number(row, TIME)];
    if (kernel === undefined || time === null || unit === undefined || time <= 0) return [];
    const [issue, tensor] = [number(row, ISSUE), number(row, TENSOR)];
    const busiest = issue === null && tensor === null ? null : Math.max(issue ?? 0, tensor ?? 0);
    return [
      {
        kernel,
        ns: time * unit,
        memoryPct: number(row, MEMORY) ?? number(row, DRAM),
        computePct: number(row, COMPUTE) ?? busiest,
        warpsPct: number(row, WARPS),
        registers: number(row, REGISTERS),
      },
    ];
  });
  return { launches, trouble: trouble.length === 0 ? "" : firstWords(trouble.join(";")) };
}

/** The cells of a line of CSV in which every cell is quoted; a quote within is doubled. */
function cellsOf(line: string): string[] {
  // Sticky: a line that is none costs one look, however long it is.
  return [...line.matchAll(/"((?:[^"]|"")*)"(?:,|\r?$)/gy)].map(([, cell = ""]) => cell.replaceAll('""', '"'));
}

/** Kernels by their share of the time, largest first; behind the name launches, mean time, means over that time of what each reached, and registers of a thread. */
export function kernelRegions(launches: readonly Launch[]): Pick<Profile, "regions" | "samples"> {
  const byName = new Map<string, Launch[]>();
  for (const launch of launches) {
    const same = byName.get(launch.kernel);
    if (same) same.push(launch);
    else byName.set(launch.kernel, [launch]);
  }
  const timeOf = (some: readonly Launch[]): number => some.reduce((sum, l) => sum + l.ns, 0);
  const all = timeOf(launches);
  const regions = [...byName]
    .map(([kernel, of]) => ({ kernel, of, ns: timeOf(of) }))
    .sort((a, b) => b.ns - a.ns || (a.kernel < b.kernel ? -1 : 1))
    .slice(0, MOST_REGIONS)
    .map(({ kernel, of, ns }) => {
      const mean = (key: "memoryPct" | "computePct" | "warpsPct"): number | null => {
        const known = of.flatMap((l) => (l[key] === null ? [] : [{ ns: l.ns, pct: l[key] }]));
        return known.length === 0 ? null : known.reduce((sum, l) => sum + l.ns * l.pct, 0) / known.reduce((sum, l) => sum + l.ns, 0);
      };
      const registers = of.flatMap((l) => l.registers ?? []);
      const facts = [
        `${of.length} x ${(ns / of.length / 1e3).toFixed(1)} us`,
        ...[["memory", mean("memoryPct")] as const, ["compute", mean("computePct")] as const, ["warps", mean("warpsPct")] as const].flatMap(
          ([what, pct]) => (pct === null ? [] : [`${what} ${Math.min(100, pct).toFixed(0)} %`]),
        ),
        ...(registers.length === 0 ? [] : [`${Math.max(...registers)} registers`]),
      ];
      const behind = ` [${facts.join(", ")}]`;
      return { name: plainName(kernel, NAME_CHARS - behind.length) + behind, share: ns / all, samples: of.length };
    });
  return { regions, samples: launches.length };
}
