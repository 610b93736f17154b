import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ArtifactChunk, ArtifactRequest, CampaignRequest, ExportBundle, sha256, type ArtifactRef } from "@vibeserve/shared";
import type { ApiClient } from "../api/client.ts";
import { connectClient } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** Writes a campaign's events, report and git bundle into a folder. Works through any coordinator that can be reached. */
export async function exportBundle(
  { settings, context, output }: Invocation,
  id: string | undefined,
  out: string | undefined,
): Promise<void> {
  await using client = await connectClient(settings, context);
  const request = { v: 1 as const, kind: "campaign.request" as const, campaign: id ?? null };
  const bundle = await client.ask("export", CampaignRequest, request, ExportBundle);
  const folder = out ?? join(settings.data, "export", bundle.campaign);
  mkdirSync(folder, { recursive: true });
  const files: string[] = [];
  for (const [name, ref] of [
    ["events.jsonl", bundle.events],
    ["report.json", bundle.report],
    ["campaign.bundle", bundle.git],
  ] as const) {
    if (!ref) continue;
    writeFileSync(join(folder, name), await download(client, ref));
    files.push(name);
  }
  output.answer({ ...bundle, folder, files }, `campaign ${bundle.campaign}: ${files.join(", ")} in ${folder}`);
}

/** An artifact's bytes, checked by digest. */
export async function download(client: ApiClient, ref: ArtifactRef): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let offset = 0;
  do {
    const chunk = await client.ask(
      "artifact",
      ArtifactRequest,
      { v: 1, kind: "artifact.request", digest: ref.digest, offset },
      ArtifactChunk,
    );
    if (chunk.data.length === 0 && ref.bytes > offset)
      throw new CliError(EXIT.negative, `artifact ${ref.digest} ends at ${offset} of ${ref.bytes} bytes`);
    parts.push(chunk.data);
    offset += chunk.data.length;
  } while (offset < ref.bytes);
  const bytes = Buffer.concat(parts);
  if (sha256(bytes) !== ref.digest) throw new CliError(EXIT.negative, `artifact ${ref.digest} arrived damaged`);
  return bytes;
}
