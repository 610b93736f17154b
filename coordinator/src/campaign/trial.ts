import { nameOf, type CampaignFact, type ChampionRef, type Outcome } from "@vibeserve/shared";
import { find, leader, SEED, type Campaign } from "./campaign.machine.ts";
import { crownFailure } from "./crowning.ts";
import type { Experiment } from "./experiment.machine.ts";
import { jobOutcome } from "./job-effect.ts";

/** A campaign that puts given champions to the test (options.trial). Its jobs, its crowning and its log are those of any other; only its plan is given. */

const isOf = (x: Experiment, r: ChampionRef): boolean => x.portOf !== null && nameOf(x.portOf) === nameOf(r);
const issueOf = (r: ChampionRef): string => `trial-${r.campaign}-${r.experimentId}`.slice(0, 64);

/** Outcome of effect `plan` in a trial: each champion in turn, on the seed; a re-qualification ends with the first that leads. */
export function planTrial(c: Campaign): CampaignFact {
  const { trial } = c.options;
  if (!trial) throw new Error(`campaign ${c.id} is no trial`);
  const claim = (r: ChampionRef): string =>
    trial.purpose === "matrix"
      ? `the champion ${nameOf(r)} runs here, and how fast`
      : `the champion ${nameOf(r)} is still good (${trial.because ?? "asked for"})`;
  const mechanism = "its very tree, built, checked and measured here like any candidate";
  if (c.backlog.length === 0) {
    const issues = trial.champions.map((r) => ({
      id: issueOf(r),
      title: claim(r),
      mechanism,
      skills: [],
      expected: 1,
      filedBy: "playbook" as const,
    }));
    return { type: "backlog.filed", issues };
  }
  if (trial.purpose === "requalify" && leader(c) !== SEED) return { type: "search.ended", reason: `${shown(c, leader(c))} leads` };
  const next = trial.champions.find((r) => !c.experiments.some((x) => isOf(x, r)));
  if (!next) return { type: "search.ended", reason: `all of ${trial.champions.length} champions were tried` };
  return {
    type: "experiment.proposed",
    experimentId: `e${c.experiments.length + 1}`,
    issues: [issueOf(next)],
    portOf: next,
    weighed: [],
    hypothesis: {
      claim: claim(next),
      mechanism,
      expected: { metric: c.target.objective.name, ratio: 1 },
      activation: "it builds and passes its check",
      falsification: "the 90 % interval of the paired ratio against the seed does not lie above 1",
      invariants: ["served tokens follow the float32 reference within the gates"],
      parent: SEED,
      skills: [],
      passCriteria: ["it builds", "the checks pass", "the interval of the paired ratio lies above 1"],
    },
  };
}

const shown = (c: Campaign, id: string): string => {
  const of = find(c, id)?.portOf;
  return of ? `${id} (${nameOf(of)})` : id;
};

export interface Verdict {
  champion: ChampionRef;
  /** undecided: it was not tried to the end, for no fault of its own. */
  verdict: "still-good" | "rolled-back" | "undecided";
  /** What is to be served instead: the last champion that is still good, or the seed. */
  to: ChampionRef | "seed" | null;
  reason: string;
}

/** What a re-qualification says of its champion, the first that it was given; null: not ended, or none. Derived from its log, so kept nowhere else. */
export function verdictOf(c: Campaign): Verdict | null {
  const [champion] = c.options.trial?.purpose === "requalify" ? c.options.trial.champions : [];
  return champion && c.ended ? judged(c, champion) : null;
}

/** Also before its end is written down, which says it in words. */
function judged(c: Campaign, champion: ChampionRef): Verdict {
  const undecided = (reason: string): Verdict => ({ champion, verdict: "undecided", to: null, reason });
  if (c.ended?.outcome === "cancelled" || c.ended?.outcome === "failed") return undecided(c.ended.reason);
  const x = c.experiments.find((e) => isOf(e, champion));
  if (!x?.settled) return undecided("it was not tried");
  const crowned = find(c, c.champions.at(-1)?.experimentId ?? "")?.portOf;
  if (crowned && nameOf(crowned) === nameOf(champion)) return { champion, verdict: "still-good", to: null, reason: x.settled.reason };
  if (x.settled.outcome === "blocked" || crownBlocked(c, x.id)) return undecided(crownFailure(c, x.id) ?? x.settled.reason);
  return { champion, verdict: "rolled-back", to: crowned ?? "seed", reason: crownFailure(c, x.id) ?? x.settled.reason };
}

function crownBlocked(c: Campaign, id: string): boolean {
  const failed = (o: Outcome | null): boolean => o?.status === "failed" && o.failure.attribution !== "candidate";
  return ["crown-check", "crown", "repeat"].some((step) => failed(jobOutcome(c, id, step)));
}

/** The last fact of a trial; null: it is none, and ends as campaigns do. A matrix crowns nothing: what is fastest of many on the seed's slice is a row, not a champion. */
export function trialEnding(c: Campaign): Extract<CampaignFact, { type: "campaign.ended" }> | null {
  const { trial } = c.options;
  const [first] = trial?.champions ?? [];
  if (!trial || !first) return null;
  const outcome = c.champions.length > 0 ? "proven" : "not-proven";
  if (trial.purpose === "matrix")
    return { type: "campaign.ended", outcome, reason: `measured ${c.experiments.length} champions against the seed; nothing is crowned` };
  const { verdict, to, reason } = judged(c, first);
  const instead = verdict === "rolled-back" && to !== null ? ` to ${to === "seed" ? "the seed" : nameOf(to)}` : "";
  const cause = trial.because === null ? "" : ` (tested for ${trial.because})`;
  return { type: "campaign.ended", outcome, reason: `${nameOf(first)} is ${verdict}${instead}${cause}: ${reason}` };
}
