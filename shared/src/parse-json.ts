/** Undefined for what is no JSON: no schema takes that. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A list is one, too. */
export const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;
