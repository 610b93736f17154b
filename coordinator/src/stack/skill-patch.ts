import type { SkillFinding } from "../campaign/skill-findings.ts";
import { plain } from "../agents/prompt.ts";

export const SECTION = "## Measured";
/** Lines around a change, as diff has them. */
const CONTEXT = 3;
/** What is kept of a reason. */
const REASON = 240;

/** Where a finding comes from; a text that holds it has the finding already. */
const origin = (f: SkillFinding): string => `campaign ${f.campaign}${f.experiment === null ? "" : ` ${f.experiment}`}`;

/** The newest finding of each kind that the text does not hold yet, as lines of its section, oldest first. */
export function newLines(text: string, findings: readonly SkillFinding[]): string[] {
  const kinds = new Map(findings.map((f) => [[f.target, f.isa, f.device, f.outcome, ...f.over].join("\n"), f]));
  return [...kinds.values()].filter((f) => !text.includes(`${origin(f)}.`)).map(lineOf);
}

function lineOf(f: SkillFinding): string {
  const day = new Date(f.at).toISOString().slice(0, 10);
  const where = `${day}, target ${f.target}, ${f.isa}, ${f.cores} cores (${harmless(f.device)}${f.simulated ? ", SIMULATED" : ""})`;
  const r = f.ratio;
  const ratio = r === null ? "" : ` ${r.point.toFixed(3)}× [${r.lo.toFixed(3)}, ${r.hi.toFixed(3)}], ${r.pairs} pairs`;
  const over = r === null ? "" : ` against ${f.over.join(", ") || "its parent"}`;
  const more = f.refused !== null ? `; refused at its crowning: ${harmless(f.refused)}` : f.mechanism && `; "${harmless(f.mechanism)}"`;
  return `- ${where}: ${f.outcome}${ratio}${over}${more}; ${origin(f)}.`;
}

/** Words of a model or a build within one line of Markdown: no links, code, tags or quotes of their own. */
const harmless = (text: string): string =>
  plain(text)
    .replace(/[`[\]<>"*|]/g, "")
    .slice(0, REASON);

/** The text with lines at the end of its section, which is made at the end of the text where there is none. The text must end with a line break. */
export function withLines(text: string, lines: readonly string[]): string {
  const { at, added } = insertion(text.split("\n").slice(0, -1), lines);
  const all = text.split("\n");
  return [...all.slice(0, at), ...added, ...all.slice(at)].join("\n");
}

/** The same as a patch that git apply takes; path is relative to the repository. */
export function additionPatch(path: string, text: string, lines: readonly string[]): string {
  const old = text.split("\n").slice(0, -1);
  const { at, added } = insertion(old, lines);
  const [before, after] = [old.slice(Math.max(0, at - CONTEXT), at), old.slice(at, at + CONTEXT)];
  const around = before.length + after.length;
  const from = at - before.length + 1;
  const hunk = [...before.map((l) => ` ${l}`), ...added.map((l) => `+${l}`), ...after.map((l) => ` ${l}`)];
  const head = [`diff --git a/${path} b/${path}`, `--- a/${path}`, `+++ b/${path}`];
  return [...head, `@@ -${from},${around} +${from},${around + added.length} @@`, ...hunk, ""].join("\n");
}

function insertion(old: readonly string[], lines: readonly string[]): { at: number; added: readonly string[] } {
  const start = old.indexOf(SECTION);
  if (start < 0) return { at: old.length, added: ["", SECTION, ...lines] };
  const next = old.findIndex((line, i) => i > start && line.startsWith("## "));
  const end = next < 0 ? old.length : next;
  const last = old.findLastIndex((line, i) => i < end && line.trim() !== "");
  return { at: last + 1, added: lines };
}
