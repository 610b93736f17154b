import { createTwoFilesPatch } from "diff";
import { checkCandidateFiles, CandidateFilesError, type CandidateFiles } from "../checkpoint/candidate-files.ts";

/** What a tool can't do, in words for the model. */
export class ToolProblem extends Error {
  override readonly name = "ToolProblem";
}

/** Bounds on one answer: a few thousand tokens, so that a conversation of 30 turns fits. */
const READ_LINES = 400;
const ANSWER_CHARS = 16_000;
const HITS = 60;
const LINE_CHARS = 400;
/** Lines that differ; the time for a diff grows with its square: 3 s for these, an hour for what fits into a tree. */
const MOST_EDITS = 8_000;

/**
 * The candidate's tree in an experiment's hands: a map of paths to bytes, so no path, link or file of this machine can be reached through it. The same calls on
 * the same tree give the same answers: a conversation is played again from its turns.
 */
export class Workspace {
  readonly #files: Map<string, Uint8Array>;
  readonly #parent: ReadonlyMap<string, Uint8Array>;

  /** parent: what changes are shown against. */
  constructor(files: ReadonlyMap<string, Uint8Array>, parent: ReadonlyMap<string, Uint8Array> = files) {
    this.#files = new Map(files);
    this.#parent = parent;
  }

  /** Another one with the same files, which goes its own way. */
  copy(): Workspace {
    return new Workspace(this.#files, this.#parent);
  }

  get files(): ReadonlyMap<string, Uint8Array> {
    return this.#files;
  }

  /** Paths under a folder ("" for all) with sizes in bytes. */
  list(folder: string): string {
    const under = folder === "" || folder === "." ? "" : `${folder.replace(/\/+$/, "")}/`;
    const lines = [...this.#files].filter(([path]) => path.startsWith(under)).sort(byPath);
    if (lines.length === 0) throw new ToolProblem(`there is no folder ${JSON.stringify(folder)} in the tree`);
    return bounded(lines.map(([path, bytes]) => `${path} ${bytes.length}`).join("\n"));
  }

  /** Lines that hold `text`, literally. */
  search(text: string, folder: string): string {
    if (text === "") throw new ToolProblem("text: nothing to search for");
    const hits: string[] = [];
    for (const [path, bytes] of [...this.#files].sort(byPath)) {
      if (!path.startsWith(folder === "." ? "" : folder)) continue;
      for (const [i, line] of decode(bytes).split("\n").entries())
        if (line.includes(text) && hits.push(`${path}:${i + 1}: ${line.slice(0, LINE_CHARS)}`) >= HITS)
          return bounded(`${hits.join("\n")}\n(the first ${HITS} hits)`);
    }
    return hits.length === 0 ? `no line holds ${JSON.stringify(text)}` : bounded(hits.join("\n"));
  }

  /** Numbered lines from `first`, at most READ_LINES. */
  read(path: string, first: number, count: number): string {
    const lines = decode(this.#get(path)).split("\n");
    if (lines.at(-1) === "") lines.pop();
    if (first > Math.max(1, lines.length)) throw new ToolProblem(`first: ${path} has ${lines.length} lines`);
    const shown = lines.slice(first - 1, first - 1 + Math.min(count, READ_LINES));
    const end = first - 1 + shown.length;
    const more = end < lines.length ? `\n(lines ${first} to ${end} of ${lines.length})` : "";
    return bounded(shown.map((line, i) => `${first + i}\t${line}`).join("\n") + more);
  }

  write(path: string, content: string): string {
    const is = this.#files.has(path) ? "replaced" : "written";
    this.#put(path, content);
    return `${is}: ${path}, ${content.split("\n").length - (content.endsWith("\n") ? 1 : 0)} lines`;
  }

  /** Replaces the one place where `old` stands; the file must exist. */
  edit(path: string, old: string, by: string): string {
    const text = decode(this.#get(path));
    if (old === "") throw new ToolProblem("old: empty; to make a file use write");
    const at = text.indexOf(old);
    if (at < 0) throw new ToolProblem(`old: this text does not stand in ${path}; read it again, spaces count`);
    if (text.indexOf(old, at + 1) >= 0)
      throw new ToolProblem(`old: this text stands in ${path} more than once; give more of what is around it`);
    this.#put(path, text.slice(0, at) + by + text.slice(at + old.length));
    return `changed: ${path}, line ${text.slice(0, at).split("\n").length}`;
  }

  remove(path: string): string {
    this.#get(path);
    this.#files.delete(path);
    return `removed: ${path}`;
  }

  /** All at once, null for what is gone: on the way from one tree to another a path may be a file and a folder, or stand there in two spellings. */
  apply(changes: Readonly<Record<string, string | null>>): string {
    const next = new Map(this.#files);
    const entries = Object.entries(changes);
    for (const [path, content] of entries)
      if (content === null) next.delete(path);
      else next.set(path, Buffer.from(content));
    checked(next);
    for (const [path] of entries) {
      const bytes = next.get(path);
      if (bytes) this.#files.set(path, bytes);
      else this.#files.delete(path);
    }
    return `${entries.length} files`;
  }

  /** Paths that differ from the parent's. */
  changed(): string[] {
    const paths = new Set([...this.#files.keys(), ...this.#parent.keys()]);
    return [...paths].filter((p) => !same(this.#files.get(p), this.#parent.get(p))).sort();
  }

  /** Unified diff against the parent, of one path or of all; at most `chars` long, and says what it left out. */
  diff(path: string | null, chars = ANSWER_CHARS): string {
    const paths = this.changed().filter((p) => path === null || p === path);
    if (paths.length === 0) return path === null ? "no change" : `no change in ${path}`;
    let out = "";
    for (const [i, p] of paths.entries()) {
      const [before, after] = [this.#parent.get(p), this.#files.get(p)];
      const names = [before ? `a/${p}` : "/dev/null", after ? `b/${p}` : "/dev/null"] as const;
      const bound = { maxEditLength: before && after ? MOST_EDITS : Infinity };
      const patch =
        createTwoFilesPatch(...names, text(before), text(after), undefined, undefined, bound) ??
        `--- ${names[0]}\n+++ ${names[1]}\n(too different to be shown line by line; read it)\n`;
      if (out.length + patch.length > chars)
        return `${out}${patch.slice(0, Math.max(0, chars - out.length))}\n(cut; not shown in full: ${paths.slice(i).join(", ")})`.slice(
          0,
          chars + 2_000,
        );
      out += patch;
    }
    return out;
  }

  #get(path: string): Uint8Array {
    const bytes = this.#files.get(path);
    if (!bytes) throw new ToolProblem(`there is no file ${JSON.stringify(path.slice(0, 200))} in the tree; list shows what there is`);
    return bytes;
  }

  #put(path: string, content: string): void {
    this.apply({ [path]: content });
  }
}

function checked(files: CandidateFiles): void {
  try {
    checkCandidateFiles(files);
  } catch (error) {
    if (error instanceof CandidateFilesError) throw new ToolProblem(error.message);
    throw error;
  }
}

const byPath = ([a]: [string, unknown], [b]: [string, unknown]): number => (a < b ? -1 : 1);
const decode = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
const text = (bytes: Uint8Array | undefined): string => (bytes ? decode(bytes) : "");
const same = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a !== undefined && b !== undefined && Buffer.from(a).equals(b);

/** At most ANSWER_CHARS, and says so. */
export const bounded = (answer: string): string =>
  answer.length > ANSWER_CHARS ? `${answer.slice(0, ANSWER_CHARS)}\n(cut: ${answer.length} characters)` : answer;
