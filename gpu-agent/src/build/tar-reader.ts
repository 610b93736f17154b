/** A file of a candidate's tree. */
export interface TreeFile {
  readonly path: string;
  readonly executable: boolean;
  readonly bytes: Uint8Array;
}

/** A tree that may not be unpacked. `code`: "bad-archive" (whoever packed it is wrong), "bad-tree" (what it holds is not allowed). */
export class TreeError extends Error {
  readonly code: "bad-archive" | "bad-tree";
  constructor(code: "bad-archive" | "bad-tree", message: string) {
    super(message);
    this.name = "TreeError";
    this.code = code;
  }
}

/** A candidate is source code: a few hundred KB. */
export const MAX_TREE_BYTES = 32 * 2 ** 20;
const MAX_FILES = 2_000;
const MAX_DEPTH = 16;
const MAX_PAX_BYTES = 64 * 1024;
const BLOCK = 512;

/** A file of an archive, and where its bytes are in it. */
export interface TarEntry {
  readonly path: string;
  readonly executable: boolean;
  readonly at: number;
  readonly bytes: number;
}

/**
 * Reads a tar (ustar, with pax headers for long paths, as `git archive` writes them) in memory. Nothing is written, so a bad archive leaves nothing behind.
 */
export function readTar(tar: Uint8Array): TreeFile[] {
  if (tar.length > MAX_TREE_BYTES) throw new TreeError("bad-tree", `the tree has ${tar.length} bytes, over the limit of ${MAX_TREE_BYTES}`);
  const archive = Buffer.from(tar.buffer, tar.byteOffset, tar.byteLength);
  const entries = tarEntries(archive.length, (at, bytes) => archive.subarray(at, at + bytes));
  return entries.map(({ path, executable, at, bytes }) => ({ path, executable, bytes: archive.subarray(at, at + bytes) }));
}

/**
 * The files of an archive of `length` bytes, of which `read` gives some. Only plain files come out; folders are implied; anything else (links, devices), a path
 * that is absolute, has "..", or stands twice, and a mode that gives a file its owner's rights, is refused.
 */
export function tarEntries(length: number, read: (at: number, bytes: number) => Buffer): TarEntry[] {
  const files = new Map<string, TarEntry>();
  let longPath: string | null = null;
  for (let at = 0; at + BLOCK <= length;) {
    const header = read(at, BLOCK);
    if (header.every((b) => b === 0)) return [...files.values()];
    checkSum(header);
    const bytes = octal(header, 124, 12);
    const body = at + BLOCK;
    if (body + bytes > length) throw new TreeError("bad-archive", "the archive ends in the middle of a file");
    at = body + Math.ceil(bytes / BLOCK) * BLOCK;
    const type = String.fromCharCode(header[156] ?? 0);
    if (type === "g") continue;
    if (type === "x") {
      if (bytes > MAX_PAX_BYTES) throw new TreeError("bad-archive", "a pax header is too long");
      longPath = paxPath(read(body, bytes)) ?? longPath;
      continue;
    }
    const path = longPath ?? headerPath(header);
    longPath = null;
    if (type === "5") {
      checkPath(path.replace(/\/+$/, ""));
      continue;
    }
    if (type !== "0" && type !== "\0")
      throw new TreeError("bad-tree", `${JSON.stringify(path)} is not a plain file (tar type ${JSON.stringify(type)})`);
    checkPath(path);
    const mode = octal(header, 100, 8);
    if ((mode & 0o7000) !== 0) throw new TreeError("bad-tree", `${JSON.stringify(path)} would run with its owner's rights`);
    if (files.has(path)) throw new TreeError("bad-tree", `${JSON.stringify(path)} stands twice in the tree`);
    if (files.size >= MAX_FILES) throw new TreeError("bad-tree", `the tree has more than ${MAX_FILES} files`);
    files.set(path, { path, executable: (mode & 0o100) !== 0, at: body, bytes });
  }
  throw new TreeError("bad-archive", "the archive has no end");
}

function checkPath(path: string): void {
  const parts = path.split("/");
  const bad =
    path.startsWith("/") ||
    path.length > 512 ||
    parts.length > MAX_DEPTH ||
    /[\p{Cc}\\]/u.test(path) ||
    parts.some((p) => p === "" || p === "." || p === ".." || p.length > 255);
  if (bad) throw new TreeError("bad-tree", `the path ${JSON.stringify(path.slice(0, 200))} is not allowed in a tree`);
}

function headerPath(header: Buffer): string {
  const name = text(header, 0, 100);
  const prefix = text(header, 257, 6) === "ustar" ? text(header, 345, 155) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

function text(header: Buffer, at: number, length: number): string {
  const field = header.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString("utf8", 0, end < 0 ? length : end);
}

function octal(header: Buffer, at: number, length: number): number {
  const digits = text(header, at, length).trim();
  if (!/^[0-7]{0,11}$/.test(digits)) throw new TreeError("bad-archive", "a number in a header is not octal");
  return digits === "" ? 0 : parseInt(digits, 8);
}

function checkSum(header: Buffer): void {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : (header[i] ?? 0);
  if (sum !== octal(header, 148, 8)) throw new TreeError("bad-archive", "the checksum of a header is wrong");
}

/** "NN path=…\n" among the records of a pax header. */
function paxPath(body: Buffer): string | null {
  for (let at = 0; at < body.length;) {
    const space = body.indexOf(32, at);
    const length = Number(body.toString("latin1", at, Math.max(at, space)));
    if (space < 0 || !Number.isInteger(length) || length <= 0) throw new TreeError("bad-archive", "a pax header is malformed");
    const record = body.toString("utf8", space + 1, at + length - 1);
    if (record.startsWith("path=")) return record.slice(5);
    at += length;
  }
  return null;
}
