import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Campaign } from "../campaign/campaign.machine.ts";
import { curve } from "./curve.ts";
import { reportHtml } from "./report-html.ts";
import { campaignReport, type CampaignReport, type Report } from "./report-model.ts";

/** Writes report.json and report.html into `data` (each whole or not at all) with `c` as campaigns[0]; returns the model. */
export async function writeReport(data: string, c: Campaign): Promise<CampaignReport> {
  const model = campaignReport(c);
  await replaceFile(join(data, "report.json"), reportJson(model));
  await replaceFile(join(data, "report.html"), reportHtml(model, curve(c)));
  return model;
}

/** The text of a report.json of one campaign. */
export function reportJson(model: CampaignReport): string {
  const report: Report = { v: 1, kind: "report", campaigns: [model] };
  return `${JSON.stringify(report, null, 2)}\n`;
}

async function replaceFile(path: string, content: string): Promise<void> {
  await writeFile(`${path}.new`, content);
  await rename(`${path}.new`, path);
}
