import { Target, type AgentInfo, type BenchSpec } from "@vibeserve/shared";
import { built, champion, SEED, type Campaign } from "./campaign.machine.ts";
import type { Effect } from "./effect.ts";
import { jobEffect, jobOutcome } from "./job-effect.ts";
import { benchSpec, builtArm } from "./job-specs.ts";

/** Experiment column of jobs that belong to the campaign and to no experiment. */
export const CAMPAIGN = "campaign";

/** Engines that there are recipes for; what else an agent names is its own affair. */
const KNOWN: ReadonlySet<string> = new Set(Target.shape.baselines.element.options);

/**
 * The engines to compare with: those that were asked for. Who asks for no other than the target lists also gets what the agent has installed already, since
 * it costs no build. An empty list stays empty: it may be `--baseline none`.
 */
export function engines({ options, target }: Pick<Campaign, "options" | "target">, agent: AgentInfo): string[] {
  const asked = options.baselines;
  const listed = asked.length > 0 && asked.join() === target.baselines.join();
  return listed ? [...new Set([...asked, ...(agent.engines ?? []).filter((e) => KNOWN.has(e))])] : asked;
}

/**
 * The champion against each baseline on the full workload: install and sweep the engine, then paired runs against its strongest setting. A
 * baseline that can't be installed or run is left out (the report says why) and the campaign goes on. Null: nothing is left to compare.
 */
export function versusBaselines(c: Campaign): Effect[] | null {
  if (champion(c) === SEED) return null;
  for (const engine of c.options.baselines) {
    const ready = jobOutcome(c, CAMPAIGN, `baseline-${engine}`);
    const { model, workload, objective: metric } = c.target;
    if (!ready) return jobEffect(c, CAMPAIGN, `baseline-${engine}`, { kind: "baseline", engine, model, workload, metric });
    if (ready.status !== "baseline-ready") continue;
    if (!jobOutcome(c, CAMPAIGN, `versus-${engine}`)) return jobEffect(c, CAMPAIGN, `versus-${engine}`, versus(c, engine));
  }
  return null;
}

function versus(c: Campaign, engine: string): BenchSpec {
  const build = built(c, champion(c));
  if (!build) throw new Error(`campaign ${c.id}: its champion has no build`);
  const baseline = { role: "baseline" as const, stack: { source: "baseline" as const, engine, setting: null } };
  return benchSpec(c.target, "baseline", [builtArm("champion", build), baseline], c.target.workload, { min: 4, max: 8 });
}
