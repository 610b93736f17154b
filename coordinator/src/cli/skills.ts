import { findProgram } from "../setup/index.ts";
import { loadSkills } from "../stack/catalog.ts";
import { lintSkills } from "../stack/skill-lint.ts";
import { SkillFileError } from "../stack/skill-file.ts";
import { admits, indexLine, scopeOf } from "../stack/skill-scope.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { propose } from "./skills-propose.ts";
import { readTargetFile } from "./target-file.ts";

/** Lists the skills, or those that fit a target; with `lint` checks them all instead; "propose" prints a patch from what was measured. */
export async function skills(invocation: Invocation, action: string | undefined, options: { for?: string; lint?: boolean }): Promise<void> {
  const { settings, output } = invocation;
  if (action !== undefined && action !== "propose")
    throw new CliError(EXIT.badInput, `skills ${action}: there is no such action; allowed: propose`);
  const all = await loadSkills(settings.root).catch((error: unknown) => {
    throw error instanceof SkillFileError ? new CliError(EXIT.badInput, error.message) : error;
  });
  if (action === "propose") return propose(invocation, all);
  if (options.lint === true) {
    const { problems, uncompiled } = await lintSkills(all, { find: findProgram });
    const lines = [
      ...problems.map((p) => `${p.id}: ${p.message}`),
      ...uncompiled.map((id) => `${id}: uncompiled, no compiler for its fragment here`),
      `${all.size} skills, ${problems.length} problems, ${uncompiled.length} fragments uncompiled`,
    ];
    output.answer({ v: 1, kind: "skills.lint", skills: all.size, problems, uncompiled }, lines.join("\n"));
    if (problems.length > 0) throw new CliError(EXIT.negative, `${problems.length} problems in prompts/skills`);
    return;
  }
  const scope = options.for === undefined ? null : scopeOf(readTargetFile(options.for), null);
  const shown = [...all.values()].filter(({ skill }) => scope === null || admits(skill.appliesTo, scope));
  output.answer({ v: 1, kind: "skills", skills: shown.map(({ skill }) => skill) }, shown.map(indexLine).join("\n"));
}
