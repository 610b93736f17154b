import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ArtifactRef, ExportBundle } from "@vibeserve/shared";
import type { CampaignActor } from "../campaign/campaign.actor.ts";
import type { CampaignRepository } from "../checkpoint/repository.ts";
import { campaignReport } from "../report/report-model.ts";
import { reportJson } from "../report/write-report.ts";

/** Puts everything that tells a campaign's story into the artifact store; its report says how it stands now. */
export async function exportCampaign(
  actor: CampaignActor,
  repository: CampaignRepository,
  put: (bytes: Uint8Array) => Promise<ArtifactRef>,
): Promise<ExportBundle> {
  const lines = actor.events.map(({ event }) => `${JSON.stringify(event)}\n`).join("");
  return {
    v: 1,
    kind: "export",
    campaign: actor.id,
    events: await put(Buffer.from(lines)),
    git: await bundled(repository, put),
    report: await put(Buffer.from(reportJson(campaignReport(actor.state)))),
  };
}

async function bundled(repository: CampaignRepository, put: (bytes: Uint8Array) => Promise<ArtifactRef>): Promise<ArtifactRef | null> {
  const folder = mkdtempSync(join(tmpdir(), "vibeserve-export-"));
  try {
    const file = join(folder, "campaign.bundle");
    return (await repository.bundle(file)) ? await put(readFileSync(file)) : null;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
