import type { Skill } from "@vibeserve/shared";
import { elapsedMs, find, leader, type Campaign } from "../campaign/campaign.machine.ts";
import { notices } from "../campaign/rules.ts";
import { committedUsd } from "../campaign/turns.ts";
import type { PlanOf } from "./planner.ts";
import { boundIn } from "./first-prompt.ts";
import { clipped, fenced, fitting } from "./prompt.ts";

/** 6,000 tokens at three bytes each, where no tokeniser is at hand: the bound of the planner's whole prompt. */
export const PLANNER_BYTES = 18_000;
/** What is kept of one reason or summary. */
const LINE = 220;

/**
 * What the planner sees of a campaign, at most `bytes` long whatever its length: where it stands, what the rules ask for, the backlog's open ideas, experiments
 * (the newest; older ones as counts by outcome), what earlier campaigns left, and the options. Time is that of the last event: the same log, the same prompt.
 */
export function plannerPrompt(c: Campaign, of: PlanOf, bytes: number): string {
  const m = c.target.objective;
  const money = c.target.budget.usd - committedUsd(c.turns);
  const head = [
    `Objective: ${m.name} (${m.unit}), ${m.direction}. Model ${c.target.model.name}. Device ${c.device?.isa ?? "?"}, ${c.device?.cores ?? "?"} cores: ${(c.device?.isaBits ?? []).join(" ")}.`,
    `Workload: ${JSON.stringify(c.target.workload)}`,
    `Budget: ${Math.round(c.target.budget.wallS - elapsedMs(c, c.lastAt) / 1000)} s of ${c.target.budget.wallS} s, $${money.toFixed(2)} of $${c.target.budget.usd} and ${c.target.budget.experiments - c.experiments.length} experiments are left, crowning included.`,
    `Leader: ${leader(c)}; leaders so far: ${curve(c)}.`,
    `Bound in the leader: ${boundIn(find(c, leader(c)))} (seed/… is plain scalar code).`,
    ...notices(c, of.options),
  ].join("\n");
  const choices = of.options.map(({ skill, estimate, why }) => {
    const s: Skill | undefined = of.catalog.skills.get(skill)?.skill;
    return line(`${skill} [${s?.seams.join(",") ?? ""}] expected ${estimate.toFixed(2)}x (${why}): ${s?.summary ?? ""}`);
  });
  const ideas = c.backlog
    .filter((i) => i.filedBy !== "playbook" && (i.strategy === "available" || i.strategy === "parked"))
    .map((i) =>
      line(
        `${i.id} [${i.strategy}, by ${i.filedBy}] expected ${i.expected.toFixed(2)}x: ${i.title}: ${i.mechanism}${i.experiments.length > 0 ? `; tried: ${i.reason}` : ""}`,
      ),
    );
  const tried = c.experiments.map((x) =>
    line(
      `${x.id} ${x.implemented ? "new code" : x.hypothesis.skills.join("+")} on ${x.hypothesis.parent}: expected ${x.hypothesis.expected.ratio.toFixed(2)}x, ${x.settled?.outcome ?? "running"}: ${x.settled?.reason ?? ""}${x.implemented ? ` (${x.hypothesis.claim})` : ""}`,
    ),
  );
  const measured = of.findings.map((f) =>
    line(`${f.skill}: ${Math.exp(f.logGain).toFixed(3)}x${f.over.length ? ` in place of ${f.over.join(", ")}` : ""}`),
  );
  const options = fenced(
    "options",
    newest(choices.reverse(), bytes / 3)
      .reverse()
      .join("\n") || "none",
  );
  const room = bytes - Buffer.byteLength(`${head}\n\n${options}`) - 300;
  const shown = newest(tried, Math.max(0, room * 0.45));
  const older = tried.length - shown.length;
  const experiments = [...(older > 0 ? [`(${older} older: ${counts(c, older)})`] : []), ...shown];
  const rest = room - Buffer.byteLength(experiments.join("\n"));
  const open = newest(ideas, Math.max(0, rest * 0.6));
  const last = rest - Buffer.byteLength(open.join("\n"));
  const lessons = newest(of.lessons.map(line), Math.max(0, last * 0.6));
  const kept = [...newest(measured, Math.max(0, last - Buffer.byteLength(lessons.join("\n")))), ...lessons];
  return [
    head,
    fenced("experiments", experiments.join("\n") || "none yet"),
    fenced("ideas in the backlog", open.join("\n") || "none"),
    fenced("findings of earlier campaigns on this ISA", kept.join("\n") || "none"),
    options,
  ].join("\n\n");
}

/** The newest leaders with what each gained over the one before it. */
function curve(c: Campaign): string {
  const gain = (id: string): string => {
    const ratio = c.experiments.find((x) => x.id === id)?.settled?.ratio;
    return ratio ? `${id} ${ratio.point.toFixed(2)}x` : id;
  };
  return c.leaders.slice(-8).map(gain).join(" > ");
}

const line = (text: string): string => clipped(text, LINE);

/** The last lines that fit. */
const newest = (lines: readonly string[], bytes: number): string[] => fitting(lines.toReversed(), bytes).reverse();

function counts(c: Campaign, first: number): string {
  const by = new Map<string, number>();
  for (const x of c.experiments.slice(0, first)) {
    const outcome = x.settled?.outcome ?? "running";
    by.set(outcome, (by.get(outcome) ?? 0) + 1);
  }
  return [...by].map(([outcome, n]) => `${n} ${outcome}`).join(", ");
}
