import { firstWords } from "../device/vendor-tool.ts";
import { isAbsent } from "./outline.ts";

/** One GPU in amd-smi's JSON. Its members come and go with each release, so each is looked up by itself. */
export type AmdSmiEntry = Readonly<Record<string, unknown>>;

/** ROCm 6 prints a list, ROCm 7 `{"gpu_data": [...]}`. Empty for what is neither. */
export function amdSmiList(text: string): AmdSmiEntry[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return [];
  }
  const list = Array.isArray(json) ? (json as unknown[]) : member(json, "gpu_data");
  return Array.isArray(list) ? list.filter((e): e is AmdSmiEntry => e !== null && typeof e === "object") : [];
}

/** A member at a path of names; undefined where there is none. */
export function member(of: unknown, ...path: string[]): unknown {
  let at = of;
  for (const name of path) at = at !== null && typeof at === "object" ? (at as Record<string, unknown>)[name] : undefined;
  return at;
}

export function textOf(value: unknown): string | null {
  return typeof value === "string" && value !== "" && !isAbsent(value) ? firstWords(value) : null;
}

/** `{"value": 750, "unit": "W"}`, "750 W" or, in the oldest releases, a bare number. */
export function amount(value: unknown, unit: string): number | null {
  if (typeof value === "number") return value;
  if (typeof value === "string") return new RegExp(`^(-?[\\d.]+)( ${unit})?$`).test(value) ? Number.parseFloat(value) : null;
  const given = member(value, "unit");
  return given === unit || given === undefined || given === "" ? numberOf(member(value, "value")) : null;
}

const numberOf = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);
