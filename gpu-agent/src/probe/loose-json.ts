import { isRecord } from "@vibeserve/shared";
import { firstWords } from "../device/vendor-tool.ts";
import { isAbsent } from "./outline.ts";

/** A member at a path of names; undefined where there is none. For vendors' JSON, whose members come and go with each release. */
export function member(of: unknown, ...path: string[]): unknown {
  let at = of;
  for (const name of path) at = isRecord(at) ? at[name] : undefined;
  return at;
}

/** Null for what is no text, empty, or a tool's word for "not here". */
export function textOf(value: unknown): string | null {
  return typeof value === "string" && value !== "" && !isAbsent(value) ? firstWords(value) : null;
}

/** `{"value": 750, "unit": "W"}`, "750 W" or, in the oldest releases, a bare number. Null for another unit. */
export function amount(value: unknown, unit: string): number | null {
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (typeof value === "string") return new RegExp(`^(-?[\\d.]+)( ${unit})?$`).test(value) ? Number.parseFloat(value) : null;
  const given = member(value, "unit");
  const number = member(value, "value");
  if (given !== unit && given !== undefined && given !== "") return null;
  return typeof number === "number" && Number.isFinite(number) ? number : null;
}
