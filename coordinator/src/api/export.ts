import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ArtifactRef, ExportBundle } from "@vibeserve/shared";
import type { CampaignActor } from "../campaign/campaign.actor.ts";
import type { CampaignRepository } from "../checkpoint/repository.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
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
  using folder = temporaryFolder("export");
  const file = join(folder.path, "campaign.bundle");
  return (await repository.bundle(file)) ? await put(readFileSync(file)) : null;
}
