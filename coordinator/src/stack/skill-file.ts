import { issuesOf, Skill } from "@vibeserve/shared";
import { parse } from "yaml";

export class SkillFileError extends Error {
  readonly path: string;
  constructor(path: string, message: string) {
    super(`${path}: ${message}`);
    this.name = "SkillFileError";
    this.path = path;
  }
}

/** A skill as read from disk: its front matter, and the text that an LLM reads. */
export interface SkillFile {
  skill: Skill;
  text: string;
}

/** Parses a SKILL.md: YAML between two lines of `---`, then Markdown. `path` is only named in errors. */
export function parseSkillFile(path: string, content: string): SkillFile {
  const match = /^---\r?\n([\s\S]*?)\r?\n---\r?\n([\s\S]*)$/.exec(content);
  if (match?.[1] === undefined || match[2] === undefined)
    throw new SkillFileError(path, "no front matter: the file must start with a line '---'");
  let raw: unknown;
  try {
    raw = parse(match[1]);
  } catch (cause) {
    throw new SkillFileError(path, `front matter is not YAML: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  const parsed = Skill.safeParse(raw);
  if (!parsed.success) throw new SkillFileError(path, issuesOf(parsed.error));
  return { skill: parsed.data, text: match[2] };
}
