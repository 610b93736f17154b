import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { PinnedAsset } from "../../coordinator/src/setup/pinned-assets.ts";

/** A wheel made on the spot and the asset that pins it. */
export interface SmallAsset {
  asset: PinnedAsset;
  /** Holds the wheel. */
  folder: string;
  /** The asset as JSON, for fetch-small-asset.ts. */
  file: string;
  content: Buffer;
}

/** Makes `tiny-tool` 1.0: one program of `bytes` bytes, as a file of its own (`member`) or as a folder that holds the whole wheel. */
export function makeSmallAsset(root: string, realPython: string, shape: "file" | "folder", bytes = 1000): SmallAsset {
  const folder = join(root, "index");
  mkdirSync(join(root, "src/tiny"), { recursive: true });
  mkdirSync(folder, { recursive: true });
  const content = Buffer.alloc(bytes, "abcdefg\n");
  writeFileSync(join(root, "src/tiny/tool"), content);
  const wheel = join(folder, "tiny_tool-1.0-py3-none-any.whl");
  execFileSync(realPython, ["-m", "zipfile", "-c", wheel, "tiny/"], { cwd: join(root, "src") });
  const file = shape === "file" ? "" : "tiny/tool";
  const asset: PinnedAsset = {
    name: "tiny tool",
    wheel: "tiny-tool",
    version: "1.0",
    place: "bin/tiny-1.0",
    part: "core",
    needsBytes: 1000,
    digests: { any: { wheel: sha256(readFileSync(wheel)), files: { [file]: sha256(content) }, run: [file] } },
    ...(shape === "file" ? { member: "tiny/tool" } : {}),
  };
  const path = join(root, "asset.json");
  writeFileSync(path, JSON.stringify(asset));
  return { asset, folder, file: path, content };
}

function sha256(data: Buffer): string {
  return createHash("sha256").update(data).digest("hex");
}
