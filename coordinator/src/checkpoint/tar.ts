import { isScript, sortedPaths, type CandidateFiles } from "./candidate-files.ts";

const BLOCK = 512;

/**
 * A POSIX ustar archive that depends on paths and bytes alone: sorted, no times, no owners, so that the same tree is the same artifact.
 * Files only; whoever unpacks makes the folders.
 */
export function tarOf(files: CandidateFiles): Buffer {
  const parts: Buffer[] = [];
  for (const path of sortedPaths(files)) {
    const content = files.get(path) ?? new Uint8Array();
    parts.push(tarHeader(path, content.length, isScript(content) ? 0o755 : 0o644), Buffer.from(content), tarPadding(content.length));
  }
  parts.push(TAR_END);
  return Buffer.concat(parts);
}

/** What fills the last block of a member of so many bytes. */
export const tarPadding = (bytes: number): Buffer => Buffer.alloc((BLOCK - (bytes % BLOCK)) % BLOCK);

export const TAR_END = Buffer.alloc(2 * BLOCK);

/** What a member is: a file, a symbolic link to `link`, or the name of the next member, as its content, where that is longer than 100 bytes (GNU tar's). */
const TYPES = { file: "0", link: "2", longName: "L" } as const;

/** What stands before the header of a path of more than 100 bytes: a member that holds all of it. Empty for others. */
export function tarLongName(path: string, mode: number): Buffer {
  const name = Buffer.from(`${path}\0`);
  if (name.length <= 101) return Buffer.alloc(0);
  return Buffer.concat([tarHeader("././@LongLink", name.length, mode, "longName"), name, tarPadding(name.length)]);
}

/** Of a path, the first 100 bytes. */
export function tarHeader(path: string, bytes: number, mode: number, type: keyof typeof TYPES = "file", link = ""): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, width: number) => block.write(`${value.toString(8).padStart(width - 1, "0")}\0`, at, "latin1");
  block.write(path, 0, 100, "utf8");
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(bytes, 124, 12);
  octal(0, 136, 12);
  block.write("        ", 148, "latin1");
  block.write(TYPES[type], 156, "latin1");
  block.write(link, 157, 100, "utf8");
  block.write("ustar\x0000", 257, "latin1");
  octal(0, 329, 8);
  octal(0, 337, 8);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}
