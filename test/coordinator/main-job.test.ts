import { describe, expect, it } from "vitest";
import { print, row, type BenchReport } from "../../coordinator/src/benchmarks/bench-report.ts";
import { mainJobReport } from "../../coordinator/src/benchmarks/main-job.ts";
import { campaignReport, type CampaignReport } from "../../coordinator/src/report/report-model.ts";
import { World } from "../campaign/world.ts";

/** What a campaign reports whose only skill is `truth` times as fast as the seed. */
function reported(truth: number): CampaignReport {
  const world = new World([{ id: "q4", seam: "linear", stated: 9, truth }]);
  world.run();
  return campaignReport(world.state);
}

function printed(report: BenchReport): { passed: boolean; text: string; last: unknown } {
  const lines: string[] = [];
  const passed = print(report, { say: (line) => lines.push(line), answer: (_, line) => lines.push(line) });
  return { passed, text: lines.join("\n"), last: JSON.parse(lines.at(-1) ?? "") as unknown };
}

const second = { what: "second run", why: "takes too long" };
const missing = { engine: "e", version: null, setting: null, ratio: null, rates: null, sweep: [], accuracy: null, missing: "no pip" };

describe("the bench of the main job", () => {
  it("passes when every goal is met but for the run that was left out on purpose, and its last line says what it is", () => {
    const report = mainJobReport(reported(30), 120);
    report.notMeasured.push({ ...second, leftOut: true });
    const { passed, text, last } = printed(report);
    expect(passed, text).toBe(true);
    expect(last).toMatchObject({ v: 1, kind: "bench", bench: "main-job", notMeasured: [second] });
  });

  it.each<[string, BenchReport, string]>([
    ["no report", mainJobReport(null, 120), "every goal"],
    ["no champion", mainJobReport(reported(0.9), 120), "champion / seed"],
    ["no baseline", mainJobReport({ ...reported(30), baselines: [missing] }, 120), "champion / e"],
    ["a second run that came to nothing", { bench: "b", rows: [row("x", 1, "s", "<= 2")], notMeasured: [second] }, "second run"],
  ])("fails for want of a number, without a single goal missed: %s", (_, report, what) => {
    expect(report.rows.filter((r) => r.ok === false)).toEqual([]);
    const { passed, text } = printed(report);
    expect(text).toContain(`not measured: ${what}`);
    expect(passed).toBe(false);
  });
});
