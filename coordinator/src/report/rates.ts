import { canonicalJson, type Arm, type Target, type Workload } from "@vibeserve/shared";
import { built, champion, type Campaign } from "../campaign/campaign.machine.ts";
import { jobId } from "../campaign/job-effect.ts";
import type { JobEntry } from "../campaign/ledger.ts";
import { meanTokens } from "../campaign/workloads.ts";

/** A rate in the metric's unit, and on which workload: never compared across workloads. full and slice: the target's, whatever the number of requests; short: neither. */
export interface Rate {
  value: number;
  workload: "full" | "short" | "slice";
}

/** What an experiment's screening measured of its candidate; null before. */
export function screeningRate(c: Campaign, id: string): Rate | null {
  const screen = c.ledger[jobId(c, id, "screen")];
  return (screen && runsIn(c, screen)[0]?.rate) ?? null;
}

/** Of all runs of the champion's build, in whichever arm of whichever comparison, one on the full workload, else on the longest; of those the one with most requests. */
export function championRate(c: Campaign): Rate | null {
  const digest = built(c, champion(c))?.buildDigest;
  const runs = Object.values(c.ledger)
    .flatMap((entry) => runsIn(c, entry))
    .filter(({ stack }) => stack.source === "build" && stack.build.buildDigest === digest);
  const full = runs.filter(({ rate }) => rate.workload === "full");
  const length = (w: Workload): number => meanTokens(w.prompt) + meanTokens(w.output);
  const [best] = (full.length > 0 ? full : runs).sort(
    (a, b) => length(b.workload) - length(a.workload) || b.workload.requests - a.workload.requests,
  );
  return best?.rate ?? null;
}

/** Both arms of a comparison, the challenger's first; nothing where none was measured. */
function runsIn({ target }: Campaign, { spec, outcome }: JobEntry): { rate: Rate; stack: Arm["stack"]; workload: Workload }[] {
  if (spec.kind !== "bench" || outcome?.status !== "measured") return [];
  const { workload } = spec;
  return (["challenger", "champion"] as const).map((arm) => ({
    rate: { value: outcome[arm].value, workload: kindOf(workload, target) },
    stack: spec[arm].stack,
    workload,
  }));
}

/** By value: a target that was read from the log shares no object with the jobs made from it. */
function kindOf(w: Workload, { workload, slice }: Target): Rate["workload"] {
  const isLike = (other: Workload): boolean => canonicalJson({ ...w, requests: 0 }) === canonicalJson({ ...other, requests: 0 });
  return isLike(workload) ? "full" : isLike(slice) ? "slice" : "short";
}
