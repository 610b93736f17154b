import { readdir, readFile } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { digestOf, sha256, type Skill } from "@vibeserve/shared";
import { z } from "zod";
import { parseSkillFile, SkillFileError, type SkillFile } from "./skill-file.ts";

/** All that a search may draw on: one stack's files and the skills that fit it. Read once; the digest names exactly this content. */
export interface Catalog {
  stack: string;
  /** Path relative to the stack's folder, with "/" → content. */
  files: ReadonlyMap<string, Buffer>;
  skills: ReadonlyMap<string, SkillFile>;
  /** All skills of the installation: what a model may read, whatever stack its binding is for. Not part of the digest: no tree is made of them. */
  knowledge: ReadonlyMap<string, SkillFile>;
  /** sha256 over every path and content of files and skills. */
  digest: string;
}

/** Reads stacks/<name> and prompts/skills/*. Throws SkillFileError naming the file for a skill whose binding does not exist. */
export async function loadCatalog(root: string, stackPath: string): Promise<Catalog> {
  const folder = join(root, stackPath);
  const stack = basename(stackPath);
  const files = new Map<string, Buffer>();
  for (const path of await walk(folder)) files.set(relative(folder, path).split(sep).join("/"), await readFile(path));
  await addBorrowed(root, files);
  const skills = new Map<string, SkillFile>();
  const knowledge = await loadSkills(root);
  for (const [id, file] of knowledge) {
    if (!file.skill.appliesTo.stacks.includes(stack)) continue;
    const binding = bindingPath(file.skill);
    if (binding !== null && !files.has(binding))
      throw new SkillFileError(skillPath(root, id), `binding "${file.skill.binding ?? ""}" is not in ${stackPath}/bindings`);
    skills.set(id, file);
  }
  const digest = digestOf({
    files: [...files].map(([path, bytes]) => [path, sha256(bytes)]).sort(),
    skills: [...skills].map(([id, s]) => [id, digestOf(s.skill), sha256(s.text)]).sort(),
  });
  return { stack, files, skills, knowledge, digest };
}

const BORROWED = "borrowed.json";

/** `borrowed.json`, {path in this stack: path under stacks/}: files that another stack's folder holds for both. A tree has them as its own. */
async function addBorrowed(root: string, files: Map<string, Buffer>): Promise<void> {
  const list = files.get(BORROWED);
  if (list === undefined) return;
  files.delete(BORROWED);
  for (const [path, from] of Object.entries(z.record(z.string(), z.string()).parse(JSON.parse(list.toString("utf8")))))
    files.set(path, await readFile(join(root, "stacks", from)));
}

/** Every skill under prompts/skills, by id. Throws SkillFileError naming the file. */
export async function loadSkills(root: string): Promise<Map<string, SkillFile>> {
  const skills = new Map<string, SkillFile>();
  for (const id of (await readdir(join(root, "prompts", "skills"))).sort()) {
    const path = skillPath(root, id);
    const file = parseSkillFile(path, await readFile(path, "utf8"));
    if (file.skill.id !== id) throw new SkillFileError(path, `id is "${file.skill.id}", its folder is "${id}"`);
    skills.set(id, file);
  }
  return skills;
}

export const skillPath = (root: string, id: string): string => join(root, "prompts", "skills", id, "SKILL.md");

/** Path of a skill's binding within the stack's folder; null for a skill that is knowledge only. */
export const bindingPath = (skill: Skill): string | null => (skill.binding === undefined ? null : `bindings/${skill.binding}`);

async function walk(folder: string): Promise<string[]> {
  const paths: string[] = [];
  for (const entry of (await readdir(folder, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) paths.push(...(await walk(path)));
    else if (entry.isFile()) paths.push(path);
  }
  return paths;
}
