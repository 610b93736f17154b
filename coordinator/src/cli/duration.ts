import { CliError, EXIT } from "./exit.ts";

const UNITS: Record<string, number> = { d: 86_400, h: 3600, m: 60, s: 1 };

/** Seconds of "300", "90s", "5m", "1h30m", "30d"; null for anything else, and for nothing. */
export function parseDuration(text: string): number | null {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) > 0 ? Number(text) : null;
  if (!/^(\d+d)?(\d+h)?(\d+m)?(\d+s)?$/.test(text) || text === "") return null;
  const seconds = [...text.matchAll(/(\d+)([dhms])/g)].reduce((sum, [, n, unit]) => sum + Number(n) * (UNITS[unit ?? ""] ?? 0), 0);
  return seconds > 0 ? seconds : null;
}

/** Seconds that an option names. Throws CliError (bad input). */
export function durationOf(option: string, text: string): number {
  const seconds = parseDuration(text);
  if (seconds === null) throw new CliError(EXIT.badInput, `${option} ${text}: not a duration; allowed: such as 90s, 5m, 1h30m, 30d`);
  return seconds;
}
