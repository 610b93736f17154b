import { SEAMS } from "@vibeserve/shared";
import { checkFragment, type Fragment } from "./skill-fragment.ts";
import type { SkillFile } from "./skill-file.ts";

/** A body shorter than this says what to do, not how. Lines that hold text, the fragment's included. */
export const MIN_BODY_LINES = 60;
/** Share of the shorter body's 8-word shingles that two bodies may have in common. */
export const MAX_SHARED = 0.2;
/** Parts that every body has, as headings. */
export const PARTS = ["What", "When", "How", "Check", "Breaks"] as const;
const SHINGLE = 8;

export interface SkillProblem {
  id: string;
  message: string;
}
export interface LintReport {
  problems: SkillProblem[];
  /** Skills whose fragment no compiler here could read. */
  uncompiled: string[];
}

/** Checks form, references between skills, likeness of bodies, and each fragment with the compiler for its language, where there is one. */
export async function lintSkills(skills: ReadonlyMap<string, SkillFile>, tools: Parameters<typeof checkFragment>[1]): Promise<LintReport> {
  const problems: SkillProblem[] = [];
  const uncompiled: string[] = [];
  for (const [id, file] of skills) {
    problems.push(...formProblems(id, file, skills).map((message) => ({ id, message })));
    const fragments = fragmentsOf(file.text);
    if (fragments.length !== 1) problems.push({ id, message: `has ${fragments.length} fenced blocks marked "fragment", needs one` });
    for (const fragment of fragments) {
      const verdict = await checkFragment(fragment, tools);
      if (verdict === "uncompiled") uncompiled.push(id);
      else if (verdict !== "ok")
        problems.push({ id, message: `its ${fragment.language} fragment does not compile: ${verdict.slice(0, 2_000)}` });
    }
  }
  problems.push(...likeness(skills));
  return { problems, uncompiled };
}

function formProblems(id: string, { skill, text }: SkillFile, skills: ReadonlyMap<string, SkillFile>): string[] {
  const problems: string[] = [];
  const lines = text.split("\n").filter((line) => line.trim() !== "").length;
  if (lines < MIN_BODY_LINES) problems.push(`its body has ${lines} lines that hold text, needs ${MIN_BODY_LINES}`);
  for (const part of PARTS) if (!new RegExp(`^## ${part}\\b`, "m").test(text)) problems.push(`has no heading "## ${part}"`);
  for (const other of [...skill.requires.skills, ...skill.conflicts])
    if (!skills.has(other)) problems.push(`names skill "${other}", which does not exist`);
  for (const [, other] of text.matchAll(/\[[^\]]*\]\(\.\.\/([^/)]+)\/SKILL\.md\)/g))
    if (other !== undefined && !skills.has(other)) problems.push(`links to skill "${other}", which does not exist`);
  if (skill.sources.length < 2) problems.push(`names ${skill.sources.length} primary sources, needs 2`);
  const seams: readonly string[] = SEAMS;
  if (skill.binding !== undefined && (skill.appliesTo.stacks.length === 0 || !skill.seams.some((s) => seams.includes(s))))
    problems.push("has a binding, so it must name the stacks that it fits and own a seam of theirs");
  if (skill.conflicts.includes(id)) problems.push("conflicts with itself");
  return problems;
}

function fragmentsOf(text: string): Fragment[] {
  return [...text.matchAll(/^```([a-z+]+) fragment\n([\s\S]*?)^```$/gm)].map(([, language, code]) => ({
    language: language ?? "",
    code: code ?? "",
  }));
}

function likeness(skills: ReadonlyMap<string, SkillFile>): SkillProblem[] {
  const shingles = [...skills].map(([id, { text }]) => ({ id, set: shinglesOf(text) }));
  return shingles.flatMap((a, i) =>
    shingles.slice(i + 1).flatMap((b) => {
      const [small, large] = a.set.size <= b.set.size ? [a.set, b.set] : [b.set, a.set];
      let shared = 0;
      for (const s of small) if (large.has(s)) shared++;
      return small.size > 0 && shared / small.size > MAX_SHARED
        ? [{ id: a.id, message: `shares ${Math.round((100 * shared) / small.size)} % of its words in runs of ${SHINGLE} with ${b.id}` }]
        : [];
    }),
  );
}

function shinglesOf(text: string): Set<string> {
  const words = text.toLowerCase().match(/[a-z0-9_]+/g) ?? [];
  return new Set(Array.from({ length: Math.max(0, words.length - SHINGLE + 1) }, (_, i) => words.slice(i, i + SHINGLE).join(" ")));
}
