import { notRunnableYet, Target, type SubmitRequest } from "@vibeserve/shared";
import type { z } from "zod";
import { durationOf } from "./duration.ts";
import { CliError, EXIT } from "./exit.ts";
import { readTargetFile } from "./target-file.ts";

/** Options of `submit` and `start` that change a target for one campaign. */
export interface SubmissionOptions {
  budget?: string;
  agent?: string;
  usd?: string;
  baseline?: string[];
}

/** The request for this target file with these options. Throws CliError (bad input). */
export function submission(file: string, options: SubmissionOptions, repeat: string): SubmitRequest {
  const target = withMoney(readTargetFile(file), options);
  const missing = notRunnableYet(target);
  if (missing.length > 0) throw new CliError(EXIT.badInput, missing.map((why) => `${file}: not runnable yet: ${why}`).join("\n"));
  return {
    v: 1,
    kind: "submit",
    target: {
      ...target,
      ...(options.agent === undefined ? {} : { agent: oneOf(Target.shape.agent, "agent", options.agent) }),
      budget: {
        ...target.budget,
        ...(options.budget === undefined ? {} : { wallS: durationOf("--budget", options.budget) }),
        ...(options.usd === undefined ? {} : { usd: usdOf(options.usd) }),
      },
    },
    options: {
      baselines: options.baseline === undefined ? target.baselines : baselinesOf(options.baseline),
      repeat,
    },
  };
}

/** Where a model is asked for and nobody said what it may spend: enough for a few experiments by hand of a model, and the hours that these take. */
const MODEL_BUDGET = { usd: 10, wallS: 4 * 3600 };

function withMoney(target: Target, options: SubmissionOptions): Target {
  if ((options.agent ?? target.agent) === "playbook" || target.budget.usd > 0 || options.usd !== undefined) return target;
  return { ...target, budget: { ...target.budget, ...MODEL_BUDGET } };
}

/** The words after a verb with which a person runs the same campaign again. */
export function repeatWords(file: string | undefined, options: SubmissionOptions & { unsafeNoSandbox?: boolean }): string[] {
  return [
    ...(file === undefined ? [] : [file]),
    ...(options.budget === undefined ? [] : ["--budget", options.budget]),
    ...(options.agent === undefined ? [] : ["--agent", options.agent]),
    ...(options.usd === undefined ? [] : ["--usd", options.usd]),
    ...(options.baseline ?? []).flatMap((name) => ["--baseline", name]),
    ...(options.unsafeNoSandbox === true ? ["--unsafe-no-sandbox"] : []),
  ];
}

function usdOf(text: string): number {
  const usd = Number(text);
  if (text.trim() === "" || !Number.isFinite(usd) || usd < 0)
    throw new CliError(EXIT.badInput, `--usd ${text}: not an amount; allowed: such as 5 or 0.50`);
  return usd;
}

function baselinesOf(names: readonly string[]): Target["baselines"] {
  if (names.includes("none")) {
    if (names.length > 1)
      throw new CliError(EXIT.badInput, `--baseline none can't be combined with ${names.filter((n) => n !== "none").join(", ")}`);
    return [];
  }
  return names.map((name) => oneOf(Target.shape.baselines.element, "baseline", name, ["none"]));
}

/** The option's value, if the target's schema knows it; others: what else could be said. */
function oneOf<T extends string>(schema: z.ZodEnum<Record<T, T>>, option: string, name: string, others: readonly string[] = []): T {
  const known = schema.safeParse(name);
  if (known.success) return known.data;
  throw new CliError(
    EXIT.badInput,
    `--${option} ${name}: there is no such ${option}; allowed: ${[...schema.options, ...others].join(", ")}`,
  );
}
