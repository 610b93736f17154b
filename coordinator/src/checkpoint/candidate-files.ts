import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, realpathSync } from "node:fs";
import { join } from "node:path";

/**
 * The files of a candidate's tree, by path with "/" separators. A candidate may come from a model, so what git or a file system could take for
 * more than a plain file is refused here, once, before anything is written:
 *   C1. No path leaves the tree, and no component starts with ".git" (repository, attributes, modules, and their disguises on other systems).
 *   C2. Only regular files: a Map of bytes holds no links; a folder that is read must hold none.
 *   C3. No two paths are the same on a file system that ignores case, and no file is also a folder.
 */
export type CandidateFiles = ReadonlyMap<string, Uint8Array>;

export class CandidateFilesError extends Error {
  readonly path: string;
  constructor(path: string, message: string) {
    super(`${JSON.stringify(path)}: ${message}`);
    this.name = "CandidateFilesError";
    this.path = path;
  }
}

/** Ten times what the largest stack so far holds. */
const MAX_FILES = 2_000;
const MAX_TREE_BYTES = 16 * 1024 * 1024;
/** Of a folder that is read, empty folders included. */
const MAX_ENTRIES = 2 * MAX_FILES;
const LINUX = process.platform === "linux";
/** Fits the name field of a ustar header without its prefix. */
const MAX_PATH_BYTES = 100;

/** Printable ASCII without what shells, git's quoting and Windows give a meaning to. Sources need no more. */
const COMPONENT = /^[A-Za-z0-9_+@,.=-][A-Za-z0-9_+@,.= -]*$/;

/** Throws CandidateFilesError for the first path that breaks C1–C3 or a size limit. */
export function checkCandidateFiles(files: CandidateFiles): void {
  if (files.size === 0) throw new CandidateFilesError("", "a candidate without files");
  if (files.size > MAX_FILES) throw new CandidateFilesError("", `${files.size} files; at most ${MAX_FILES} are allowed`);
  let bytes = 0;
  const seen = new Map<string, string>();
  const folders = new Set<string>();
  for (const [path, content] of files) {
    checkPath(path);
    const lower = path.toLowerCase();
    const twin = seen.get(lower);
    if (twin !== undefined) throw new CandidateFilesError(path, `differs from ${JSON.stringify(twin)} only in case`);
    seen.set(lower, path);
    for (let at = lower.indexOf("/"); at >= 0; at = lower.indexOf("/", at + 1)) folders.add(lower.slice(0, at));
    bytes += content.length;
  }
  for (const [lower, path] of seen) if (folders.has(lower)) throw new CandidateFilesError(path, "is a file and a folder");
  if (bytes > MAX_TREE_BYTES) throw new CandidateFilesError("", `${bytes} bytes; at most ${MAX_TREE_BYTES} are allowed`);
}

function checkPath(path: string): void {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) throw new CandidateFilesError(path, `is longer than ${MAX_PATH_BYTES} bytes`);
  if (path.startsWith("/")) throw new CandidateFilesError(path, "is absolute");
  for (const component of path.split("/")) {
    if (component === "" || component === "." || component === "..")
      throw new CandidateFilesError(path, `has the component "${component}"`);
    // git~1 is .git's short name on Windows.
    if (/^(\.git|git~[0-9])/i.test(component)) throw new CandidateFilesError(path, "names something of git's own");
    if (!COMPONENT.test(component)) throw new CandidateFilesError(path, "has a character that is not allowed in a candidate's paths");
    if (/[ .]$/.test(component)) throw new CandidateFilesError(path, "has a component that ends in a dot or a space");
  }
}

/**
 * Reads a folder (a worktree) as a candidate; its top-level `.git` is the worktree's own link and is left out. A coding agent may be at work in it meanwhile,
 * and change any of it at any moment: whatever is opened is what lies in the folder (Linux; elsewhere no agent does), and no more than a tree is read.
 */
export function readCandidateFiles(folderOfTree: string): Map<string, Uint8Array> {
  const root = realpathSync(folderOfTree);
  const files = new Map<string, Uint8Array>();
  let [bytes, entries] = [0, 0];
  const walk = (folder: string) => {
    for (const name of namesIn(root, folder)) {
      const path = folder === "" ? name : `${folder}/${name}`;
      if (path === ".git") continue;
      if (++entries > MAX_ENTRIES) throw new CandidateFilesError("", `more than ${MAX_ENTRIES} files and folders`);
      const stat = lstatSync(join(root, path));
      if (stat.isDirectory()) {
        checkPath(path);
        walk(path);
      } else if (stat.isFile() && stat.nlink === 1) {
        if (files.size >= MAX_FILES) throw new CandidateFilesError("", `more than ${MAX_FILES} files`);
        const content = contentOf(root, path, MAX_TREE_BYTES - bytes);
        bytes += content.length;
        files.set(path, content);
      } else throw new CandidateFilesError(path, stat.isSymbolicLink() ? "is a symbolic link" : "is not a regular file");
    }
  };
  try {
    walk("");
  } catch (error) {
    // Gone, locked or something else since it was listed.
    if (error instanceof Error && "code" in error && !(error instanceof CandidateFilesError))
      throw new CandidateFilesError("", `the folder can't be read: ${String(error.code)}`);
    throw error;
  }
  checkCandidateFiles(files);
  return files;
}

/** Opens what lies at the path itself, not where a link leads that was put into its place or into that of a folder above it. */
function opened<T>(root: string, path: string, flags: number, use: (fd: number) => T): T {
  const place = join(root, path);
  const fd = openSync(place, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | flags);
  try {
    if (LINUX && readlinkSync(`/proc/self/fd/${fd}`) !== place) throw new CandidateFilesError(path, "changed while it was read");
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

const namesIn = (root: string, folder: string): string[] =>
  opened(root, folder, constants.O_DIRECTORY, (fd) => readdirSync(LINUX ? `/proc/self/fd/${fd}` : join(root, folder)).sort());

function contentOf(root: string, path: string, room: number): Buffer {
  return opened(root, path, 0, (fd) => {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.nlink !== 1) throw new CandidateFilesError(path, "is not a regular file");
    if (stat.size > room) throw new CandidateFilesError(path, `${stat.size} bytes; at most ${MAX_TREE_BYTES} are allowed in all`);
    const content = Buffer.alloc(stat.size);
    let at = 0;
    for (let n = -1; n !== 0 && at < content.length; at += n) n = readSync(fd, content, at, content.length - at, at);
    return content.subarray(0, at);
  });
}

/** A script is executable; everything else is data. Decided by content so that a Map of bytes needs no modes. */
export function isScript(content: Uint8Array): boolean {
  return content[0] === 0x23 && content[1] === 0x21;
}

/** Sorted by bytes: the order of git's trees and of the tar. */
export function sortedPaths(files: CandidateFiles): string[] {
  return [...files.keys()].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}
