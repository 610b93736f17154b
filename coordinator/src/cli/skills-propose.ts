import { readFile } from "node:fs/promises";
import { relative, sep } from "node:path";
import { skillFindings, type SkillFinding } from "../findings/skill-finding.ts";
import { skillPath } from "../stack/catalog.ts";
import { parseSkillFile, type SkillFile } from "../stack/skill-file.ts";
import { lintSkills } from "../stack/skill-lint.ts";
import { additionPatch, newLines, withLines } from "../stack/skill-patch.ts";
import { campaignLogs } from "./campaign-logs.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** Prints a patch that adds what ended campaigns of the data folder showed of each skill to its text. Changes no file. */
export async function propose({ settings, output }: Invocation, skills: ReadonlyMap<string, SkillFile>): Promise<void> {
  const { logs } = await campaignLogs({ settings, context: undefined, output });
  const findings = logs.flatMap(skillFindings).sort((a, b) => a.at - b.at);
  const { patch, patched } = await patchOf(settings.root, skills, findings);
  await mustStayClean(skills, patched);
  const campaigns = new Set(findings.map((f) => f.campaign)).size;
  const found = `${findings.length} findings of ${campaigns} ended campaigns`;
  const text =
    patch === ""
      ? `${found}; nothing that the skills do not hold`
      : `${found}; review this, then give it to: git apply\n${patch.trimEnd()}`;
  output.answer({ v: 1, kind: "skills.proposal", findings, patch }, text);
}

async function patchOf(root: string, skills: ReadonlyMap<string, SkillFile>, findings: readonly SkillFinding[]) {
  const patched = new Map(skills);
  const patches: string[] = [];
  for (const [id, mine] of Map.groupBy(findings, (f) => f.skill)) {
    if (!skills.has(id)) continue;
    const path = skillPath(root, id);
    const text = await readFile(path, "utf8");
    if (!text.endsWith("\n")) throw new CliError(EXIT.badInput, `${path} does not end with a line break`);
    const lines = newLines(text, mine);
    if (lines.length === 0) continue;
    patches.push(additionPatch(relative(root, path).split(sep).join("/"), text, lines));
    patched.set(id, parseSkillFile(path, withLines(text, lines)));
  }
  return { patch: patches.join(""), patched };
}

/** A patch never makes the linter complain of what it did not complain of before; fragments do not change, so no compiler is asked. */
async function mustStayClean(before: ReadonlyMap<string, SkillFile>, after: ReadonlyMap<string, SkillFile>): Promise<void> {
  const lint = async (all: ReadonlyMap<string, SkillFile>) =>
    (await lintSkills(all, { find: () => Promise.resolve(undefined) })).problems.map((p) => `${p.id}: ${p.message}`);
  const known = new Set(await lint(before));
  const fresh = (await lint(after)).filter((p) => !known.has(p));
  if (fresh.length > 0)
    throw new CliError(EXIT.negative, `the patch would not pass the linter; shorten these skills first: ${fresh.join("; ")}`);
}
