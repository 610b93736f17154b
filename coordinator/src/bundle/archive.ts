import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { rename, stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { sha256 } from "@vibeserve/shared";
import { TAR_END, tarHeader, tarLongName, tarPadding } from "../checkpoint/tar.ts";
import { sha256File } from "../setup/index.ts";

/** A member of an archive, by its path there: a file of this machine, bytes, or a symbolic link. */
export type Member = { file: string } | { content: string; run?: true } | { link: string };
export type Members = Map<string, Member>;

export interface Archive {
  path: string;
  bytes: number;
  sha256: string;
}

/** What an archive says of itself: `MANIFEST.json` for the core, `MANIFEST-<part>.json` for the others. */
export interface ManifestHead {
  name: string;
  part: string;
  platform: string;
  versions: Record<string, string>;
  /** What other platforms' archives of this name have and this has not, with the reason. */
  leftOut?: Record<string, string>;
}

/**
 * Writes `<top>/<path>` of every member and a manifest with the sha256 of each file as a gzipped tar, which any Linux and any Mac unpacks. The same members make the
 * same bytes under the same zlib: sorted, no times, no owners, no path of this machine. It appears under its name when it is whole.
 */
export async function writeArchive(path: string, head: ManifestHead, members: Members): Promise<Archive> {
  const sorted = [...members].sort(([a], [b]) => (a < b ? -1 : 1));
  const files: Record<string, string> = {};
  const links: Record<string, string> = {};
  for (const [name, member] of sorted) {
    if ("link" in member) links[name] = member.link;
    else files[name] = "file" in member ? await sha256File(member.file) : sha256(member.content);
  }
  const manifest = head.part === "core" ? "MANIFEST.json" : `MANIFEST-${head.part}.json`;
  const content = `${JSON.stringify({ v: 1, kind: "bundle", ...head, files, links }, null, 2)}\n`;
  const draft = `${path}.draft`;
  const digest = createHash("sha256");
  let bytes = 0;
  await pipeline(
    Readable.from(tarOfMembers(head.name, [[manifest, { content }], ...sorted])),
    createGzip({ level: 9 }),
    async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        digest.update(chunk);
        bytes += chunk.length;
        yield chunk;
      }
    },
    createWriteStream(draft),
  );
  await rename(draft, path);
  return { path, bytes, sha256: digest.digest("hex") };
}

async function* tarOfMembers(top: string, members: readonly (readonly [string, Member])[]): AsyncGenerator<Buffer> {
  for (const [path, member] of members) {
    const name = `${top}/${path}`;
    const long = tarLongName(name, 0o644);
    if (long.length > 0) yield long;
    if ("link" in member) yield tarHeader(name, 0, 0o777, "link", member.link);
    else if ("content" in member) {
      const bytes = Buffer.from(member.content);
      yield Buffer.concat([tarHeader(name, bytes.length, member.run ? 0o755 : 0o644), bytes, tarPadding(bytes.length)]);
    } else {
      const { size, mode } = await stat(member.file);
      yield tarHeader(name, size, (mode & 0o100) === 0 ? 0o644 : 0o755);
      for await (const chunk of createReadStream(member.file)) yield chunk as Buffer;
      yield tarPadding(size);
    }
  }
  yield TAR_END;
}
