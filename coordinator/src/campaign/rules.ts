import type { Outcome } from "@vibeserve/shared";
import type { Weighed } from "../playbook/plan.ts";
import { plain } from "../agents/prompt.ts";
import { leader, type Campaign } from "./campaign.machine.ts";
import { stepName, type Experiment } from "./experiment.machine.ts";
import { jobOutcome } from "./job-effect.ts";

/** What the framework tells a planner, or decides for it. Pure: the same for every agent. */

/** A plateau is this many trusted results in a row inside the noise; a failure that repeats so often asks for a smaller step. */
const IN_A_ROW = 3;
/** A standard technique that is expected to gain so much goes before anything new is written. */
const FLOOR = 1.5;
/** Of the roofline's bound: what is left is not worth a search. */
const NEAR_ROOF = 0.9;

const settled = (c: Campaign): Experiment[] => c.experiments.filter((x) => x.settled !== null);

/** The last three measured ratios all have 1 inside their interval. */
export function plateau(c: Campaign): boolean {
  const measured = settled(c).flatMap((x) => (x.settled?.ratio ? [x.settled.ratio] : []));
  const last = measured.slice(-IN_A_ROW);
  return last.length === IN_A_ROW && last.every((r) => r.lo <= 1 && r.hi >= 1);
}

/** What stands in front of a model's own words in a reason. */
const IN_WORDS = /^(needs debugging|can't work|vetoed|declared unsuitable)/;

/** How an experiment failed, without what differs from try to try, and in no words of a model's; null where it did not fail for reasons of its own. */
export function signature(x: Experiment): string | null {
  if (x.settled?.outcome !== "implementation_failed") return null;
  const { reason } = x.settled;
  const said = IN_WORDS.exec(reason)?.[0];
  return (
    said ??
    plain(reason.replace(/\d+(\.\d+)?(e-?\d+)?/gi, "#"))
      .replace(/[<>]/g, "")
      .slice(0, 120)
  );
}

/** The signature with which the last three experiments failed; null: they did not fail alike. */
export function repeatedFailure(c: Campaign): string | null {
  const last = settled(c).slice(-IN_A_ROW).map(signature);
  const [first = null] = last;
  return first !== null && last.length === IN_A_ROW && last.every((s) => s === first) ? first : null;
}

/** The standard technique that goes first; null: new code may be written. */
export function floorFirst(options: readonly Weighed[]): Weighed | null {
  return options.find((o) => o.estimate >= FLOOR) ?? null;
}

/** How far the leader is along the roofline, 0 to 1; null where no profile gave one or the objective is no rate of tokens. */
export function roofShare(c: Campaign): number | null {
  const x = c.experiments.find((e) => e.id === leader(c));
  if (!x) return null;
  const of = (step: "screen" | "profile"): Outcome | null => jobOutcome(c, x.id, stepName(x, step));
  const [screen, profile] = [of("screen"), of("profile")];
  if (screen?.status !== "measured" || screen.challenger.metric.unit !== "tok/s" || profile?.status !== "profiled" || !profile.roofline)
    return null;
  return screen.challenger.value / profile.roofline.tokPerS;
}

/** Why the search need not go on, whoever plans; null: go on. */
export function roofReached(c: Campaign): string | null {
  const share = roofShare(c);
  // Above it the bound does not hold for what was written: it counts weights as the file has them.
  return share !== null && share >= NEAR_ROOF && share <= 1
    ? `the leader runs at ${Math.round(100 * share)} % of the device's roofline`
    : null;
}

/** What the planner must take into account next. */
export function notices(c: Campaign, options: readonly Weighed[]): string[] {
  const out: string[] = [];
  if (plateau(c))
    out.push("Plateau: the last three results lie inside the noise. Pivot to another bottleneck, or name what will break it.");
  const repeated = repeatedFailure(c);
  if (repeated !== null) out.push(`The last three experiments failed alike (${repeated}). Take a smaller step.`);
  const last = settled(c).at(-1);
  if (last?.settled?.outcome === "disproven") out.push(`${last.id} was slower: its tree is discarded, the next one starts from a leader.`);
  const floor = floorFirst(options);
  if (floor)
    out.push(
      `Floor first: ${floor.skill} is a standard technique that is expected at ${floor.estimate.toFixed(2)}x; new code may be written after it.`,
    );
  const share = roofShare(c);
  if (share !== null) out.push(`The leader runs at ${Math.round(100 * share)} % of the device's roofline.`);
  return out;
}
