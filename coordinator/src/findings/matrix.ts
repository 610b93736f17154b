import { countOf, type Ratio } from "@vibeserve/shared";
import { SEED, type Campaign } from "../campaign/campaign.machine.ts";
import type { Champion } from "./champions.ts";
import { placeOf } from "./requalify.ts";

/** A champion's tree on a target, over that target's seed. */
export type Cell =
  | { known: "measured"; ratio: Ratio; evidence: string }
  /** It was tried and does not build, run or pass its check there. */
  | { known: "fails"; why: string; evidence: string }
  | { known: "no"; why: string };

export interface Matrix {
  /** Targets, each on an instruction set: "<target>@<isa>". */
  columns: string[];
  rows: { champion: Champion; cells: Cell[] }[];
}

/**
 * What logs say of each champion on each target: only what was measured directly against that target's seed, and of the very tree. A champion's skills put
 * together anew for another device (a port) are another tree and no cell of its row; champions of different models have nothing in common.
 */
export function matrixOf(champions: readonly Champion[], campaigns: readonly Campaign[]): Matrix {
  const bound = campaigns.filter((c) => c.device !== null);
  const columns = [...Map.groupBy(bound, placeOf)].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    columns: columns.map(([name]) => name),
    rows: champions.map((champion) => ({ champion, cells: columns.map(([, there]) => cellOf(champion, there)) })),
  };
}

/** there: every campaign of one column. */
function cellOf(champion: Champion, there: readonly Campaign[]): Cell {
  const newest = there.reduce((a, b) => (b.createdAt > a.createdAt ? b : a));
  const other = incompatible(champion.campaign, newest);
  if (other !== null) return { known: "no", why: other };
  const alike = there.filter(
    (c) =>
      c.target.model.sha256 === newest.target.model.sha256 &&
      c.workloadDigest === newest.workloadDigest &&
      countOf(c.target).deviceCount === countOf(newest.target).deviceCount,
  );
  const tried = alike.flatMap((c) => [...screened(champion, c), ...ownOf(champion, c)]);
  const last = tried.reduce<(Cell & { at: number }) | null>((a, b) => (a && a.at > b.at ? a : b), null);
  if (!last) return { known: "no", why: "not measured" };
  const { at: _, ...cell } = last;
  return cell;
}

/** Why a champion of `from` can't be asked to serve where `to` was run; null: it can. */
function incompatible(from: Campaign, to: Campaign): string | null {
  if (from.target.model.sha256 !== to.target.model.sha256) return "another model";
  if (from.target.seed !== to.target.seed) return "another seed";
  return from.device?.simulated === to.device?.simulated ? null : "one is simulated";
}

/** The same tree, whoever proposed it there, measured against the seed: in a trial, or because a search came to it as well. */
function screened(champion: Champion, c: Campaign): (Cell & { at: number })[] {
  return c.experiments.flatMap((x): (Cell & { at: number })[] => {
    if (!x.settled || x.hypothesis.parent !== SEED || x.git?.treeDigest !== champion.release.treeDigest) return [];
    const [evidence, at] = [`${c.id}.${x.id}`, x.settledAt];
    if (x.settled.ratio) return [{ known: "measured", ratio: x.settled.ratio, evidence, at }];
    // What was blocked says nothing of the stack (I8).
    return x.settled.outcome === "implementation_failed" ? [{ known: "fails", why: x.settled.reason, evidence, at }] : [];
  });
}

/** Where it was crowned over the seed itself, and not over a champion. */
function ownOf(champion: Champion, c: Campaign): (Cell & { at: number })[] {
  const first = c.champions[0];
  if (c.id !== champion.campaign.id || first?.experimentId !== champion.crowned.experimentId) return [];
  return [{ known: "measured", ratio: first.repeat, evidence: champion.name, at: first.at }];
}
