import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Catalog } from "../stack/catalog.ts";

/** Writes a stack and its skills to where a coordinator with this root looks for them: `stacks/<stack>` and `prompts/skills`. Nothing in it can be compiled. */
export function writeInstallation(root: string, { stack, files, skills }: Catalog): void {
  const write = (path: string, text: string | Buffer) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  write(`stacks/${stack}/stack.json`, "{}\n");
  write(`stacks/${stack}/build.sh`, "#!/bin/sh\n");
  for (const [path, bytes] of files) write(`stacks/${stack}/${path}`, bytes);
  for (const [id, { skill }] of skills) write(`prompts/skills/${id}/SKILL.md`, `---\n${JSON.stringify(skill)}\n---\n# ${id}\n`);
}
