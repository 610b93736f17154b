import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { folderDigest, ModelShape, type Target } from "@vibeserve/shared";
import { filesUnder } from "../bundle/files-under.ts";
import { sha256File } from "../setup/index.ts";
import { loadSkills } from "../stack/catalog.ts";
import { messageOf } from "../process/message-of.ts";
import { checkTarget, gib, type TargetReport } from "./check-target.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { lineOfKey, readTargetFile } from "./target-file.ts";

interface Row extends TargetReport {
  readonly file: string;
  readonly target: Target;
  readonly lines: readonly string[];
}

/**
 * Checks targets offline: form, seed, recipes, skills' scopes, and by arithmetic whether the model fits the device. Ends with bad input if one of them has a
 * problem; a target that can't be run yet for want of a part of VibeServe is good, and said to be so.
 */
export async function validate(invocation: Invocation, files: readonly string[], options: { checkpoint?: string }): Promise<void> {
  const { settings, output } = invocation;
  const skills = await loadSkills(settings.root);
  const errors: string[] = [];
  // A checkpoint by itself is compared with nothing.
  const named = files.length > 0 || options.checkpoint !== undefined ? files : shippedTargets(settings.root);
  const rows = named.flatMap((file): Row[] => {
    try {
      const target = readTargetFile(file);
      const text = readFileSync(file, "utf8");
      const report = checkTarget(settings.root, target, skills);
      const lines = report.problems.map(([keys, message]) => `${file}:${lineOfKey(text, keys)}: ${keys.join(".")}: ${message}`);
      errors.push(...lines);
      return [{ ...report, file, target, lines }];
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
      errors.push(error.message);
      return [];
    }
  });
  const checkpoint = options.checkpoint === undefined ? null : await readCheckpoint(settings.root, options.checkpoint, rows, errors);
  output.answer(
    {
      v: 1,
      kind: "validation",
      targets: rows.map(({ file, target, fit, notRunnable, notes, skills: fitting, lines }) => ({
        file,
        name: target.name,
        ok: lines.length === 0,
        problems: lines,
        verified: target.verified !== false,
        notRunnable,
        fit,
        notes,
        skills: fitting,
      })),
      errors,
      checkpoint,
    },
    [...rows.map(render), ...(checkpoint === null ? [] : [`${checkpoint.folder}: sha256 ${checkpoint.sha256}`])].join("\n"),
  );
  if (errors.length > 0) throw new CliError(EXIT.badInput, errors.join("\n"));
}

function render({ file, target, lines, fit, notRunnable, notes, skills }: Row): string {
  const verified = target.verified === false ? "unverified: on device" : "verified";
  const table = fit
    ? [
        ...fit.items.map((i) => [i.what, gib(i.bytes), i.how]),
        ["together", gib(fit.bytes), `${fit.ok ? "fits" : "does not fit"} ${gib(fit.deviceBytes)} GiB`],
      ]
    : [];
  return [
    `${file}: ${target.name}: ${lines.length === 0 ? "good" : `${lines.length} problems`}, ${verified}, ${skills} skills`,
    ...table.map(([what = "", size = "", how = ""]) => `  ${what.padEnd(16)}${size.padStart(7)} GiB  ${how}`),
    ...notes.map((n) => `  ${n}`),
    ...notRunnable.map((n) => `  not runnable yet: ${n}`),
  ].join("\n");
}

function shippedTargets(root: string): string[] {
  const folder = join(root, "targets");
  return (
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      // Fleets are another kind of file: "simulate" reads them.
      .filter((f) => /\.ya?ml$/.test(f) && !f.startsWith("fleets"))
      .sort()
      .map((f) => relative(process.cwd(), join(folder, f)))
  );
}

/** The digest of a checkpoint's folder, and whether its config.json has the shape that the targets reckon with. */
async function readCheckpoint(
  root: string,
  folder: string,
  rows: readonly Row[],
  errors: string[],
): Promise<{ folder: string; sha256: string }> {
  let names: string[];
  let own: ModelShape;
  try {
    names = (await filesUnder(folder)).filter((name) => !/(^|\/)\./.test(name));
    own = ModelShape.parse(JSON.parse(readFileSync(join(folder, "config.json"), "utf8")));
  } catch (error) {
    const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
    const why = missing ? "it has no config.json" : messageOf(error);
    throw new CliError(EXIT.badInput, `--checkpoint ${folder}: not the folder of a Hugging Face checkpoint: ${why}`);
  }
  const sha256 = folderDigest(await Promise.all(names.map(async (name) => [name, await sha256File(join(folder, name))] as const)));
  for (const { file, target } of rows) {
    const { fits } = target;
    if (!fits) continue;
    const stated = ModelShape.parse(JSON.parse(readFileSync(join(root, "targets", "models", `${fits.shape}.json`), "utf8")));
    if (JSON.stringify(stated) !== JSON.stringify(own)) errors.push(`${file}: fits.shape: "${fits.shape}" is not the shape of ${folder}`);
    if (/^[0-9a-f]{64}$/.test(target.model.sha256) && target.model.sha256 !== sha256)
      errors.push(`${file}: model.sha256: ${target.model.sha256} is not that of ${folder}: ${sha256}`);
  }
  return { folder, sha256 };
}
