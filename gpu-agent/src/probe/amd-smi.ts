import { isRecord, parseJson } from "@vibeserve/shared";
import { member } from "./loose-json.ts";

/** One GPU in amd-smi's JSON. */
export type AmdSmiEntry = Readonly<Record<string, unknown>>;

/** ROCm 6 prints a list, ROCm 7 `{"gpu_data": [...]}`. Empty for what is neither. */
export function amdSmiList(text: string): AmdSmiEntry[] {
  const json = parseJson(text);
  const list = Array.isArray(json) ? (json as unknown[]) : member(json, "gpu_data");
  return Array.isArray(list) ? list.filter(isRecord) : [];
}
