import type { CampaignFact, Skill } from "@vibeserve/shared";
import { elapsedMs, leader, type Campaign } from "../campaign/campaign.machine.ts";
import type { Observation } from "../playbook/estimate.ts";
import type { Catalog } from "../stack/catalog.ts";
import { fenced, plain } from "./prompt.ts";

export type Proposed = Extract<CampaignFact, { type: "experiment.proposed" }>;

/** 6,000 tokens at three bytes each, where no tokeniser is at hand: the bound of the planner's whole prompt. */
export const PLANNER_BYTES = 18_000;
/** What is kept of one reason or summary. */
const LINE = 220;

/**
 * What the planner sees of a campaign, at most `bytes` long whatever its length: where it stands, the backlog's open ideas, experiments (the newest;
 * older ones as counts by outcome), findings of earlier campaigns, and the options.
 */
export function plannerPrompt(
  c: Campaign,
  catalog: Catalog,
  proposed: Proposed,
  findings: readonly Observation[],
  now: number,
  bytes: number,
): string {
  const m = c.target.objective;
  const head = [
    `Objective: ${m.name} (${m.unit}), ${m.direction}. Model ${c.target.model.name}. Device ${c.device?.isa ?? "?"}, ${c.device?.cores ?? "?"} cores: ${(c.device?.isaBits ?? []).join(" ")}.`,
    `Workload: ${JSON.stringify(c.target.workload)}`,
    `Budget: ${Math.round(c.target.budget.wallS - elapsedMs(c, now) / 1000)} s of ${c.target.budget.wallS} s and ${c.target.budget.experiments - c.experiments.length} experiments are left, crowning included.`,
    `Leader: ${leader(c)}; leaders so far: ${c.leaders.slice(-8).join(" > ")}.`,
  ].join("\n");
  const choices = proposed.weighed.map(({ skill, estimate, why }) => {
    const s: Skill | undefined = catalog.skills.get(skill)?.skill;
    return line(`${skill} [${s?.seams.join(",") ?? ""}] expected ${estimate.toFixed(2)}x (${why}): ${s?.summary ?? ""}`);
  });
  const tried = c.experiments.map((x) =>
    line(
      `${x.id} ${x.hypothesis.skills.join("+")} on ${x.hypothesis.parent}: expected ${x.hypothesis.expected.ratio.toFixed(2)}x, ${x.settled?.outcome ?? "running"}: ${x.settled?.reason ?? ""}`,
    ),
  );
  const learnt = findings.map((f) =>
    line(`${f.skill}: ${Math.exp(f.logGain).toFixed(3)}x${f.over.length ? ` in place of ${f.over.join(", ")}` : ""}`),
  );
  const options = fenced("options", choices.join("\n"));
  const room = bytes - Buffer.byteLength(`${head}\n\n${options}`) - 200;
  const shown = newest(tried, Math.max(0, (room * 2) / 3));
  const older = tried.length - shown.length;
  const experiments = [...(older > 0 ? [`(${older} older: ${counts(c, older)})`] : []), ...shown];
  const rest = newest(learnt, Math.max(0, room - Buffer.byteLength(experiments.join("\n"))));
  return [
    head,
    fenced("experiments", experiments.join("\n") || "none yet"),
    fenced("findings of earlier campaigns on this ISA", rest.join("\n") || "none"),
    options,
  ].join("\n\n");
}

const line = (text: string): string => {
  const flat = plain(text);
  return flat.length > LINE ? `${flat.slice(0, LINE - 1)}…` : flat;
};

/** The last lines that fit. */
function newest(lines: readonly string[], bytes: number): string[] {
  const kept: string[] = [];
  let used = 0;
  for (const l of [...lines].reverse()) {
    used += Buffer.byteLength(l) + 1;
    if (used > bytes) break;
    kept.unshift(l);
  }
  return kept;
}

function counts(c: Campaign, first: number): string {
  const by = new Map<string, number>();
  for (const x of c.experiments.slice(0, first)) {
    const outcome = x.settled?.outcome ?? "running";
    by.set(outcome, (by.get(outcome) ?? 0) + 1);
  }
  return [...by].map(([outcome, n]) => `${n} ${outcome}`).join(", ");
}
