import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import type { Report } from "../../coordinator/src/report/report-model.ts";
import { tempDir } from "./temp-dir.ts";
import { alive, Site } from "./vibeserve-process.ts";

/** Long enough to be interrupted in, short enough for a test: a campaign of the tiny target has 17 jobs. */
export const SLOW = { FAKE_AGENT_WORK_MS: "150" };

/** A site that is cleaned up, processes and all, when the scope ends. */
export function site(env: Record<string, string> = {}): { at: Site } & Disposable {
  const dir = tempDir("start");
  const at = new Site(dir.path, env);
  return {
    at,
    [Symbol.dispose]: () => {
      at.cleanUp();
      dir[Symbol.dispose]();
    },
  };
}

/** What a campaign decided, without times, ids and attempts. */
export function history(at: Site): unknown {
  const [c] = (JSON.parse(readFileSync(join(at.data, "report.json"), "utf8")) as Report).campaigns;
  return {
    outcome: c?.outcome,
    experiments: c?.experiments.map((x) => [x.id, x.skills, x.parent, x.outcome, x.ratio?.point]),
    champions: c?.champions.map((x) => [x.experimentId, x.ratio, x.repeat]),
    bindings: c?.champion?.bindings,
  };
}

/** The history of a campaign that nobody interrupted. */
export async function undisturbed(): Promise<unknown> {
  using s = site();
  expect(await s.at.start(s.at.target).ended).toBe(0);
  return history(s.at);
}

export async function gone(pids: readonly (number | null)[]): Promise<void> {
  await expect.poll(() => pids.filter(alive), { timeout: 20_000 }).toEqual([]);
}
