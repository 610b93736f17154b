import { open, realpath } from "node:fs/promises";
import { join } from "node:path";
import { compareVersions, type BuildOutput } from "@vibeserve/shared";
import { isElf } from "./elf-code.ts";

export type Needs = BuildOutput["needs"];

const NAMES = ["GLIBC", "GLIBCXX", "CXXABI"] as const;
const VERSION = /(?<![A-Za-z0-9_])(GLIBCXX|GLIBC|CXXABI)_(\d{1,4}(?:\.\d{1,4}){1,3})(?![\w.])/g;
const PIECE_BYTES = 256 * 1024;
/** Longer than any such name. */
const OVERLAP = 64;
/** Where distributions keep their own; the sandbox shows no other. */
const LIBRARY_FOLDERS = [
  "/lib/x86_64-linux-gnu",
  "/lib/aarch64-linux-gnu",
  "/usr/lib/x86_64-linux-gnu",
  "/usr/lib/aarch64-linux-gnu",
  "/lib64",
  "/usr/lib64",
  "/usr/lib",
];

/**
 * The latest versions of the C and C++ libraries' symbols that ELF files name. Names stand in them as text, both where a program asks for them and where a
 * library offers them, so no header of a stranger's file is parsed: a text that only looks like one makes a build need more, which hurts nobody else.
 */
export async function namedVersions(paths: readonly string[]): Promise<Needs> {
  const found = new Map<string, string>();
  for (const path of paths) await scan(path, found);
  return NAMES.flatMap((name) => {
    const min = found.get(name);
    return min === undefined ? [] : [{ name, min }];
  });
}

/** What this machine's libraries offer. Each file is read once: most of these folders are one on today's systems. */
export async function offeredVersions(folders: readonly string[] = LIBRARY_FOLDERS): Promise<Needs> {
  const paths = folders.flatMap((dir) => ["libc.so.6", "libstdc++.so.6"].map((name) => join(dir, name)));
  const real = await Promise.all(paths.map((path) => realpath(path).catch(() => [])));
  return namedVersions([...new Set(real.flat())]);
}

/** The version of the C library; null: it is none of GNU's. */
export const libcOf = (offered: Needs): string | null => offered.find((o) => o.name === "GLIBC")?.min ?? null;

/** What of it is not offered, as "GLIBC 2.38 (there is 2.36)"; null: all is. */
export function lacking(needs: Needs, offered: Needs): string | null {
  const missing = needs.flatMap(({ name, min }) => {
    const have = offered.find((o) => o.name === name)?.min;
    return have !== undefined && compareVersions(min, have) <= 0 ? [] : [`${name} ${min} (there is ${have ?? "none"})`];
  });
  return missing.length === 0 ? null : missing.join(", ");
}

/** A file that is not there, or is no ELF file, names nothing. */
async function scan(path: string, found: Map<string, string>): Promise<void> {
  await using file = await open(path, "r").catch(() => null);
  if (file === null) return;
  const piece = Buffer.alloc(PIECE_BYTES);
  let kept = 0;
  for (let first = true; ; first = false) {
    const { bytesRead } = await file.read(piece, kept, PIECE_BYTES - kept, null);
    if (bytesRead === 0 || (first && !isElf(piece))) return;
    const end = kept + bytesRead;
    for (const [, name = "", version = ""] of piece.toString("latin1", 0, end).matchAll(VERSION)) {
      const known = found.get(name);
      if (known === undefined || compareVersions(known, version) < 0) found.set(name, version);
    }
    kept = Math.min(OVERLAP, end);
    piece.copyWithin(0, end - kept, end);
  }
}
