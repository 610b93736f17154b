import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ArtifactRef, ExportBundle } from "@vibeserve/shared";
import type { CampaignActor } from "../campaign/campaign.actor.ts";
import type { CampaignRepository } from "../checkpoint/repository.ts";

/** Puts everything that tells a campaign's story into the artifact store. report: its file, if one is written. */
export async function exportCampaign(
  actor: CampaignActor,
  repository: CampaignRepository,
  put: (bytes: Uint8Array) => Promise<ArtifactRef>,
  report: string | null,
): Promise<ExportBundle> {
  const lines = actor.events.map(({ event }) => `${JSON.stringify(event)}\n`).join("");
  return {
    v: 1,
    kind: "export",
    campaign: actor.id,
    events: await put(Buffer.from(lines)),
    git: await bundled(repository, put),
    report: report !== null && existsSync(report) ? await put(readFileSync(report)) : null,
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
