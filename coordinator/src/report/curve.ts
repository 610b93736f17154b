import type { Campaign } from "../campaign/campaign.machine.ts";

export interface CurvePoint {
  /** Seconds since the campaign began. */
  atS: number;
  /** Product of the screened ratios along the chain of leaders: what the search believes, not a claim. Claims are measured directly. */
  estimate: number;
  experimentId: string;
  crowned: boolean;
}

/** The leader's estimated gain over the seed through time; a crowned point has been proven on fresh seeds. */
export function curve(c: Campaign): CurvePoint[] {
  const points: CurvePoint[] = [{ atS: 0, estimate: 1, experimentId: "seed", crowned: false }];
  let estimate = 1;
  for (const id of c.leaders) {
    const x = c.experiments.find((e) => e.id === id);
    if (!x?.settled?.ratio) continue;
    estimate *= x.settled.ratio.point;
    points.push({ atS: (x.settledAt - c.createdAt) / 1000, estimate, experimentId: id, crowned: false });
  }
  for (const won of c.champions) {
    const at = points.find((p) => p.experimentId === won.experimentId);
    points.push({
      atS: (won.at - c.createdAt) / 1000,
      estimate: at?.estimate ?? won.repeat.point,
      experimentId: won.experimentId,
      crowned: true,
    });
  }
  return points;
}
