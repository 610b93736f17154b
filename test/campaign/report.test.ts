import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CampaignEvent, decode, encode } from "@vibeserve/shared";
import { fold, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import { curve } from "../../coordinator/src/report/curve.ts";
import { escapeHtml, reportHtml } from "../../coordinator/src/report/report-html.ts";
import { campaignReport, type CampaignReport } from "../../coordinator/src/report/report-model.ts";
import { summary, table } from "../../coordinator/src/report/summary-table.ts";
import { writeReport } from "../../coordinator/src/report/write-report.ts";
import { describe as line } from "../../coordinator/src/view/describe.ts";
import { openLines } from "../../coordinator/src/view/live-view.ts";
import { World, type SimSkill } from "./world.ts";

const skills = [
  { id: "q4", seam: "linear", stated: 9, truth: 30 },
  { id: "argmax", seam: "head", stated: 1.2, truth: 0.9 },
] as const;

const ended = (): World => {
  const world = new World([...skills]);
  world.run();
  return world;
};

describe("the report", () => {
  it("states the direct ratio to the seed, each experiment with its reason, and that the world is simulated", async () => {
    const data = await mkdtemp(join(tmpdir(), "vs-report-"));
    await writeReport(data, ended().state);
    const report = JSON.parse(await readFile(join(data, "report.json"), "utf8")) as { campaigns: Record<string, unknown>[] };
    expect(report.campaigns[0]).toMatchObject({
      target: "sim",
      simulated: true,
      outcome: "proven",
      ratioToSeed: { point: 30, pairs: 4 },
      experiments: [
        { id: "e1", outcome: "proven" },
        { id: "e2", outcome: "disproven" },
      ],
    });
    for (const key of ["metric", "device", "isa", "workloadDigest", "commits", "accuracy", "repeat", "champion", "baselines"])
      expect(report.campaigns[0]).toHaveProperty(key);
    expect(await readFile(join(data, "report.html"), "utf8")).toContain("Simulated device");
  });

  it("states the error of the clocks beside the CPU time that they tell, which may stand above its limit", () => {
    const { state } = ended();
    const report = campaignReport(state);
    const page = (resolutionPct: number | undefined) =>
      reportHtml(
        { ...report, certificate: report.certificate && { ...report.certificate, foreignCpuPct: 11.13, resolutionPct } },
        curve(state),
      );
    expect(page(4.2)).toMatch(/&quot;foreignCpuPct&quot;: 11\.13[^]*known within ±4\.20 percentage points/);
    expect(page(undefined)).not.toContain("percentage points");
  });

  it("says on which workload each rate was measured, also when it is made from events that were stored", () => {
    // Simulated rates: seed 10 tok/s, then 240 (a screening against it must be shortened), then 1200 (the full workload fits).
    const all: SimSkill[] = [
      { id: "q4", seam: "linear", stated: 30, truth: 24 },
      { id: "threads", seam: "threading", stated: 4, truth: 5 },
      { id: "argmax", seam: "head", stated: 1.2, truth: 0.9 },
    ];
    const reportOf = (used: SimSkill[]): CampaignReport => {
      const world = new World(used);
      world.run();
      const stored = world.events.map((e) => decode(CampaignEvent, encode(CampaignEvent, e, "e"), "e"));
      const report = campaignReport(stored.reduce<Campaign | null>(fold, null) ?? world.state);
      expect(report).toEqual(campaignReport(world.state));
      return report;
    };
    const report = reportOf(all);
    expect(report.experiments.map((x) => x.rate)).toEqual([
      { value: 240, workload: "slice" },
      { value: 1200, workload: "short" },
      { value: 1080, workload: "full" },
    ]);
    expect(report.champion).toMatchObject({ experimentId: "e2", rate: { value: 1200, workload: "full" } });
    expect(reportOf(all.slice(0, 2)).champion?.rate).toEqual({ value: 1200, workload: "short" });
    const least = reportOf(all.slice(0, 1));
    expect(least.champion?.rate).toEqual({ value: 240, workload: "slice" });
    expect(summary(least, { report: "r", serve: "s" })).toContain("240 tok/s (output_tokens_per_second, slice workload)");
    expect(reportHtml(least, [])).toContain("240 tok/s (slice workload)");
  });

  it("is one page that asks nothing of any other host", () => {
    const c = ended().state;
    const html = reportHtml(campaignReport(c), curve(c));
    expect(html).not.toMatch(/<script|<link|https?:|url\(/);
  });

  it("shows a candidate's text as text", () => {
    const report = campaignReport(ended().state);
    for (const x of report.experiments) x.reason = `<img src=x onerror=alert(1)>`;
    expect(reportHtml(report, [{ atS: 0, estimate: 1, experimentId: "<b>", crowned: false }])).not.toContain("<img");
    expect(escapeHtml(`<a b='c'>&"`)).toBe("&lt;a b=&#39;c&#39;&gt;&amp;&quot;");
  });

  it("says of a running campaign that nothing is proven yet", () => {
    const world = new World([...skills]);
    world.run(8);
    expect(campaignReport(world.state)).toMatchObject({ state: "running", ratioToSeed: null, champion: null });
  });

  it("ends with a summary that names every experiment and the command that serves the champion", () => {
    const text = summary(campaignReport(ended().state), { report: "r.html", serve: "npm run serve" });
    expect(text).toContain("e2");
    expect(text).toContain("slower than its parent");
    expect(text).toContain("30.00×");
    expect(text).toContain("npm run serve");
  });
});

describe("the view", () => {
  it("has one line for each fact worth reading, with time running from the campaign's start", () => {
    const world = ended();
    const chunks: string[] = [];
    const view = openLines({ write: (s: string) => chunks.push(s) } as unknown as NodeJS.WritableStream);
    for (const e of world.events) view.event(e);
    view.close();
    expect(chunks[0]).toMatch(/^00:00 campaign sim/);
    expect(chunks.filter((s) => s.includes("proposed")).length).toBe(2);
    expect(chunks.at(-2)).toContain("ended, proven");
    expect(world.events.every((e) => !(line(e, world.state) ?? "").includes("\n"))).toBe(true);
  });

  it("shows no control character that a model wrote", () => {
    const world = ended();
    const words = "it works\u001b[2J\u001b]0;pwned\u0007\nsecond line";
    const declaration = { declared: "ready" as const, summary: words, evidence: [], mechanism: "", nextStep: "" };
    world.append({ type: "experiment.declared", experimentId: "e1", call: "t1c1", declaration });
    world.append({ type: "evaluation.recorded", experimentId: "e1", bottleneck: words, mechanism: "ran", evidence: "" });
    for (const e of world.events.slice(-2)) expect(line(e, world.state)).toMatch(/it works[\u0020-\u007e]*second line$/);
  });

  it("aligns table columns to their widest cell", () => {
    expect(table(["a", "b"], [["long", "x"]]).split("\n")).toEqual(["a     b", "────  ─", "long  x"]);
  });
});
