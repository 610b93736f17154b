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
    parts.push(header(path, content.length, isScript(content) ? 0o755 : 0o644), Buffer.from(content));
    const rest = content.length % BLOCK;
    if (rest > 0) parts.push(Buffer.alloc(BLOCK - rest));
  }
  parts.push(Buffer.alloc(2 * BLOCK));
  return Buffer.concat(parts);
}

function header(path: string, bytes: number, mode: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, width: number) => block.write(`${value.toString(8).padStart(width - 1, "0")}\0`, at, "latin1");
  block.write(path, 0, 100, "utf8");
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(bytes, 124, 12);
  octal(0, 136, 12);
  block.write("        ", 148, "latin1");
  block.write("0", 156, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  octal(0, 329, 8);
  octal(0, 337, 8);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}
