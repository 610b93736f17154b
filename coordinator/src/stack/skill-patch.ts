import { createTwoFilesPatch } from "diff";
import { plain } from "../agents/prompt.ts";
import type { SkillFinding } from "../findings/skill-finding.ts";

export const SECTION = "## Measured";
/** What is kept of a reason. */
const REASON = 240;

/** Where a finding comes from; a text that holds it has the finding already. */
const origin = (f: SkillFinding): string => `campaign ${f.campaign} ${f.experiment}`;

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
  const all = text.split("\n");
  const start = all.indexOf(SECTION);
  if (start < 0) return [...all.slice(0, -1), "", SECTION, ...lines, ""].join("\n");
  const next = all.findIndex((line, i) => i > start && line.startsWith("## "));
  const last = all.findLastIndex((line, i) => (next < 0 || i < next) && line.trim() !== "");
  return all.toSpliced(last + 1, 0, ...lines).join("\n");
}

/** The same as a patch that git apply takes; path is relative to the repository. */
export function additionPatch(path: string, text: string, lines: readonly string[]): string {
  const patch = createTwoFilesPatch(`a/${path}`, `b/${path}`, text, withLines(text, lines), undefined, undefined, { context: 3 });
  return `diff --git a/${path} b/${path}\n${patch.slice(patch.indexOf("---"))}`;
}
