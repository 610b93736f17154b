import { ratioOf, type BenchSpec, type CampaignFact } from "@vibeserve/shared";
import { built, champion, find, SEED, type Campaign } from "./campaign.machine.ts";
import type { Effect } from "./effect.ts";
import { failedGates } from "./experiment.machine.ts";
import { jobEffect, jobOutcome } from "./job-effect.ts";
import { benchSpec, builtArm, checkSpec } from "./job-specs.ts";

/** Direct pairs that a claim against the seed rests on at the least. */
export const CLAIM_PAIRS = 4;

/**
 * I4 for the leader, after the search: the crown check on fresh hidden slices, a paired comparison with the champion, and a repeat on fresh
 * seeds. A leader that fails falls back to the leader before it. Null: nothing is left to crown.
 */
export function crowning(c: Campaign): Effect[] | null {
  if (c.options.trial?.purpose === "matrix") return null;
  for (const id of [...c.leaders].reverse()) {
    if (id === champion(c)) return null;
    const verdict = crown(c, id);
    if (verdict !== "failed") return verdict;
  }
  return null;
}

/** Why a leader was not crowned, for the report; null if it was not tried or did not fail. */
export function crownFailure(c: Campaign, id: string): string | null {
  for (const step of ["crown-check", "crown", "repeat"]) {
    const a = jobOutcome(c, id, step);
    if (!a) continue;
    if (a.status === "failed") return `${step}: ${a.failure.code}: ${a.failure.message}`;
    if (a.status === "checked" && !a.report.ok) return `${step}: ${failedGates(a)}`;
    if (a.status === "measured" && a.comparison.lo <= 1)
      return `${step}: ${a.comparison.point.toFixed(3)}× [${a.comparison.lo.toFixed(3)}, ${a.comparison.hi.toFixed(3)}]`;
  }
  return null;
}

function crown(c: Campaign, id: string): Effect[] | "failed" {
  const stack = built(c, id);
  const x = find(c, id);
  if (!stack || !x?.git || !x.bindings) return "failed";
  if (crownFailure(c, id) !== null) return "failed";
  const check = jobOutcome(c, id, "crown-check");
  if (!check) return jobEffect(c, id, "crown-check", checkSpec(stack, c.target, "crown"));
  const first = jobOutcome(c, id, "crown");
  if (!first) return jobEffect(c, id, "crown", compare(c, id, "crown"));
  const again = jobOutcome(c, id, "repeat");
  if (!again) return jobEffect(c, id, "repeat", compare(c, id, "repeat"));
  if (first.status !== "measured" || again.status !== "measured") return "failed";
  const fact: Extract<CampaignFact, { type: "champion.crowned" }> = {
    type: "champion.crowned",
    experimentId: id,
    git: x.git,
    bindings: x.bindings,
    ratio: ratioOf(first.comparison),
    repeat: ratioOf(again.comparison),
    branch: `champion/${c.id}`,
  };
  return [{ type: "crown", id: `crown:${id}`, fact }];
}

/** Against the seed the slice is used, since the full workload would take the seed minutes; the repeat has CLAIM_PAIRS pairs at least. */
function compare(c: Campaign, id: string, purpose: "crown" | "repeat"): BenchSpec {
  const [challenger, rival] = [built(c, id), built(c, champion(c))];
  if (!challenger || !rival) throw new Error(`campaign ${c.id}: ${id} or ${champion(c)} has no build to compare`);
  const seed = champion(c) === SEED;
  const arms = [builtArm("challenger", challenger), builtArm(seed ? "seed" : "champion", rival)] as const;
  const pairs = purpose === "crown" ? { min: 2, max: 4 } : { min: CLAIM_PAIRS, max: CLAIM_PAIRS + 4 };
  return benchSpec(c.target, purpose, arms, seed ? c.target.slice : c.target.workload, pairs);
}
