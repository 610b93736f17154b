import { setTimeout as sleep } from "node:timers/promises";
import { quantile } from "@vibeserve/shared";
import { row, type Row } from "../bench-report.ts";
import { openFloor } from "../floor-lane.ts";
import type { LaneSite } from "../lane.ts";

const [WARM_UPS, MESSAGES] = [50, 500];
/** Between two messages: nothing waits for another. */
const APART_MS = 3;

/** One persisted message to a pull consumer in another process and a core message back, with everybody who is connected. */
export async function floorP50(site: LaneSite): Promise<Row> {
  const lane = await openFloor(site);
  const times: number[] = [];
  for (let i = 0; i < WARM_UPS + MESSAGES; i++) {
    const ms = await lane();
    if (i >= WARM_UPS) times.push(ms);
    await sleep(APART_MS);
  }
  return row("floor: raw JetStream on the same broker, p50", quantile(times, 0.5), "ms", "");
}
