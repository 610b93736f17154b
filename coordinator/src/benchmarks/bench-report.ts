import type { Output } from "../cli/output.ts";
import { table } from "../report/summary-table.ts";

export interface Row {
  what: string;
  value: number;
  unit: string;
  /** Such as ">= 20" or "<= 600"; "" for a floor or other context, which is neither met nor missed. */
  goal: string;
  ok: boolean | null;
}

export interface BenchReport {
  bench: string;
  rows: Row[];
  /** leftOut: nobody asked for it. Any other goal without a number counts as missed. */
  notMeasured: { what: string; why: string; leftOut?: true }[];
}

/** A row whose goal is decided here, from the goal's own text, so that text and verdict can't differ. */
export function row(what: string, value: number, unit: string, goal: string): Row {
  const match = /^(<=|>=) (\d+(?:\.\d+)?)$/.exec(goal);
  if (!match) return { what, value, unit, goal, ok: null };
  const limit = Number(match[2]);
  return { what, value, unit, goal, ok: match[1] === "<=" ? value <= limit : value >= limit };
}

/** The table, then the same as one last line of JSON. True if every goal was measured and met, but for what was left out on purpose. */
export function print(report: BenchReport, output: Pick<Output, "say" | "answer">): boolean {
  const verdict = (ok: boolean | null): string => (ok === null ? "" : ok ? "met" : "MISSED");
  const rows = report.rows.map((r) => [r.what, String(Number(r.value.toPrecision(4))), r.unit, r.goal, verdict(r.ok)]);
  output.say(table(["what", "value", "unit", "goal", ""], rows));
  for (const n of report.notMeasured) output.say(`not measured: ${n.what}: ${n.why}`);
  const object = { v: 1, kind: "bench", ...report };
  output.answer(object, JSON.stringify(object));
  return report.rows.every((r) => r.ok !== false) && report.notMeasured.every((n) => n.leftOut === true);
}
